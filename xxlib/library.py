"""Known crystals -> a library that explains scans: python -m xxlib.library known my_cifs data/libraries/mine

Sources: libraries by folder or by name in data/libraries, datasets that were prepared with --structure, folders of CIF
files, and the word amcsd; several at once.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import joblib
import numpy as np
from tqdm import tqdm

from xxlib.candidates.known import find
from xxlib.candidates.library import FILE, Library, LibraryError, library_of_rows, row_of, save
from xxlib.candidates.search import structure
from xxlib.crystals.crystal import RejectedCrystal
from xxlib.datasets.sources.amcsd import amcsd
from xxlib.datasets.sources.files import cif_folder
from xxlib.datasets.store import Dataset, DatasetError

CHUNK = 200  # crystals that a process takes at once
AMCSD = "amcsd"


def build(
    sources: Iterable[str | Path], folder: str | Path, *, n_workers: int | None = None, progress: bool = True
) -> tuple[Library, Counter]:
    """Write the library of some sources to a folder; returns (Library, why others are not in it: reason -> how many).

    Of crystals of one formula, structure type and volume the first is kept.  Raises LibraryError, DatasetError or
    ValueError where a source is none, or has no structures.
    """
    chunks = [chunk for source in sources for chunk in _chunks(source)]
    bar = tqdm(total=sum(size for *_, size in chunks), desc="library", unit="crystal", disable=not progress)
    rows, reasons = [], Counter()
    with bar, joblib.Parallel(n_workers or joblib.cpu_count(), return_as="generator") as parallel:
        for found, refused in parallel(joblib.delayed(_rows)(*chunk) for chunk in chunks):
            rows += found
            reasons.update(refused)
            bar.update(len(found) + refused.total())
    library, repeated = library_of_rows(rows)
    reasons.update(repeated)
    save(library, folder)
    return library, reasons


def _chunks(source):
    """(name of a source, its crystals or records, first, how many) in pieces that a process takes at once."""
    if source == AMCSD:
        name, records = "AMCSD", list(amcsd().records())
    elif (Path(source) / "dataset.json").is_file():
        dataset = Dataset(source)
        if not dataset.has_structure:
            raise LibraryError(f"{source} holds no structures: prepare it again with --structure")
        name = dataset.meta["source"].get("name", Path(source).name)
        size = len(dataset)
        return [(name, Path(source), k, min(CHUNK, size - k)) for k in range(0, size, CHUNK)]
    elif (folder := find(source)) and (folder / FILE).is_file():
        size = len(Library.open(folder))
        return [(folder.name, folder / FILE, k, min(CHUNK, size - k)) for k in range(0, size, CHUNK)]
    else:
        name, records = Path(source).name, list(cif_folder(source).records())
    return [(name, records[k : k + CHUNK], 0, len(records[k : k + CHUNK])) for k in range(0, len(records), CHUNK)]


def _rows(name, source, first, size):
    """Rows of a library with the keys of their types, and why other crystals are none."""
    if isinstance(source, Path) and source.name == FILE:
        return _rows_of_library(Library.open(source.parent), first, size), Counter()
    rows, reasons = [], Counter()
    dataset = Dataset(source, check=False) if isinstance(source, Path) else None
    for k in range(first, first + size):
        try:
            crystal = dataset.crystal(k) if dataset else source[k].crystal()
            rows.append(row_of(crystal, name))
        except RejectedCrystal as error:
            reasons[str(error)] += 1
    return rows, reasons


def _rows_of_library(library, first, size):
    """The same of a Library: its rows as they are.  Crystals of one type lie side by side, so that a key is of many."""
    rows, keys = [], {}
    chosen = np.argsort(library.types, kind="stable")[first : first + size]
    for crystal, row in zip(chosen, library.table.take(chosen).to_pylist()):
        number = row.pop("type")
        if number not in keys:
            own = slice(library.offsets[crystal], library.offsets[crystal + 1])
            kinds = np.unique(library.atomic_numbers[own]).astype(np.int64)
            metric, frac = library.metrics[crystal], library.frac_coords(own)
            keys[number] = row_of(structure(library, crystal, kinds, kinds, metric, frac))[1]
        rows.append((row, keys[number]))
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="xxlib library", description=__doc__.split("\n")[0])
    parser.add_argument("source", nargs="+", help="library, dataset with structures, folder of CIF files, amcsd")
    parser.add_argument("folder", type=Path, help="where the library goes")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: the cores available)")
    options = parser.parse_args(arguments)
    try:
        library, reasons = build(options.source, options.folder, n_workers=options.workers)
    except (LibraryError, DatasetError, ValueError, OSError, KeyboardInterrupt) as error:
        sys.exit(f"library: {error or 'interrupted'}")
    print(f"{options.folder}: {len(library)} crystals of {len(set(library.types.tolist()))} structure types")
    for reason, count in reasons.most_common(20):
        print(f"{count:8d}  {reason[:100]}")


if __name__ == "__main__":
    main()
