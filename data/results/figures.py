"""Draw every figure of mp36k again from the committed runs, into figures/mp36k:  python data/results/figures.py

It executes notebooks 02 to 06 with preset = "small", which trains nothing; the executed copies are in build/mp36k.
"""

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

from xxlib import PROJECT


def main():
    build = PROJECT / "build" / "mp36k"
    build.mkdir(parents=True, exist_ok=True)
    for path in tqdm(sorted((PROJECT / "notebooks").glob("0[2-6]*.ipynb")), unit="notebook"):
        notebook = nbformat.read(path, as_version=4)
        (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
        parameters.source = parameters.source.replace('preset = "smoke"', 'preset = "small"')
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}}).execute()
        nbformat.write(notebook, build / path.name)


if __name__ == "__main__":
    main()
