"""Draw every figure of mp36k again from the committed runs, into figures/mp36k:  python data/results/figures.py

Of measured patterns and the noise study from the tables that measured.py and noise.py left, where they are there.  Then
it executes notebooks 01 to 06 with preset = "small", which trains nothing; the executed copies are in build/mp36k.
Notebook 01, what the dataset holds, needs data/mp36k itself (mp36k.py prepares it) and is left out without it.
"""

from pathlib import Path

import nbformat
import pandas as pd
from nbclient import NotebookClient
from tqdm import tqdm

from xxlib import PROJECT, plots
from xxlib.training.config import PRESETS

RESULTS = Path(__file__).parent
QUANTITIES = {"accuracy": "accuracy (%)", "e_form": "E_f MAE (meV/atom)", "band_gap": "band gap MAE (eV)"}


def draw_measured(path):
    """Of measured_accuracy.csv: accuracies of all models, for each thing they were given."""
    for words, table in pd.read_csv(path).groupby("given"):
        figure = plots.accuracies(dict(list(table.groupby("model", sort=False))), f"Given {words}")
        plots.save_figure(figure, f"mp36k/measured_{words.replace(' ', '_')}")


def draw_noise(path):
    """Of noise.csv: each quantity against the severity of effects, for each thing that the models were given."""
    for words, table in pd.read_csv(path).groupby("given"):
        for name, quantity in QUANTITIES.items():
            if quantity in table:
                figure = plots.severity(table, quantity, f"On val, given {words}")
                plots.save_figure(figure, f"mp36k/noise_{name}_{words.replace(' ', '_')}")


def main():
    for name, draw in (("measured_accuracy.csv", draw_measured), ("noise.csv", draw_noise)):
        if (RESULTS / name).exists():
            draw(RESULTS / name)
    build = PROJECT / "build" / "mp36k"
    build.mkdir(parents=True, exist_ok=True)
    first = 1 if (PROJECT / PRESETS["small"].dataset / "dataset.json").exists() else 2
    for path in tqdm(sorted((PROJECT / "notebooks").glob(f"0[{first}-6]*.ipynb")), unit="notebook"):
        notebook = nbformat.read(path, as_version=4)
        (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
        parameters.source = parameters.source.replace('preset = "smoke"', 'preset = "small"')
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}}).execute()
        nbformat.write(notebook, build / path.name)


if __name__ == "__main__":
    main()
