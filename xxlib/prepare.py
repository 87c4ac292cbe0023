"""Crystals -> dataset on disk.

python -m xxlib.prepare parquet crystals.parquet data/mp36k     # the shared mp36k file, its split column kept
python -m xxlib.prepare oqmd    crystals.parquet data/oqmd_icsd # the same columns; their labels are OQMD's
python -m xxlib.prepare cif     folder-of-cif    data/mine
python -m xxlib.prepare poscar  folder           data/mine       # VASP files
python -m xxlib.prepare extxyz  frames.extxyz    data/mine
python -m xxlib.prepare generated 10000          data/generated # crystals made from prototypes; --seed
python -m xxlib.prepare alexandria https://alexandria.icams.rub.de/data/pbe/ data/alexandria  # or a folder of the files
python -m xxlib.prepare jarvis  jdft_3d-12-12-2022.json.zip     data/jarvis
python -m xxlib.prepare lemat   compatible_pbe   data/lemat      # folder of parquet files; no labels
python -m xxlib.prepare mp36k   folder           data/mp36k      # of the public files that the shared one is made of
python -m xxlib.prepare mp90k   folder           data/mp90k      # of those and a second archive
python -m xxlib.prepare materials_project all    data/mp         # or a chemical system: Li-Fe-O; needs MP_API_KEY
python -m xxlib.prepare optimade https://alexandria.icams.rub.de/pbe data/optimade   # any provider; no labels
python -m xxlib.prepare formulas table.csv       data/measured   # formulas with labels, no crystals; .csv or .parquet

With --hkl each line is stored with a reflection and each crystal with its cell, for texture; with --structure the
crystals themselves are stored, cell and atoms, a few hundred bytes each.

Interrupted or killed, the same command goes on where it was.  With --scheduler a Dask cluster does the work, whose
workers have this package and see the files of the source at the same paths.
"""

import argparse
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import joblib
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from xxlib.crystals.crystal import SYMPREC
from xxlib.datasets.preparing import workers
from xxlib.datasets.preparing.rows import TIME_LIMIT, Work
from xxlib.datasets.preparing.writer import Writer
from xxlib.datasets.sources import Source, storable
from xxlib.datasets.sources.alexandria import alexandria
from xxlib.datasets.sources.amcsd import amcsd
from xxlib.datasets.sources.files import cif_folder, extxyz_file, poscar_folder
from xxlib.datasets.sources.formulas import formulas
from xxlib.datasets.sources.generated import generated
from xxlib.datasets.sources.jarvis import jarvis
from xxlib.datasets.sources.lemat import lemat
from xxlib.datasets.sources.materials_project import materials_project
from xxlib.datasets.sources.mp36k import mp36k
from xxlib.datasets.sources.mp90k import mp90k
from xxlib.datasets.sources.optimade import optimade
from xxlib.datasets.sources.parquet import oqmd, parquet
from xxlib.diffraction.scattering import STORED_RANGE
from xxlib.diffraction.wavelengths import CU_KA

CHUNK_RECORDS = 200  # what a worker takes at once; divides writer.SHARD_RECORDS
MAX_TIME_LIMIT, MAX_WORKERS = 1e6, 1000  # s; processes

KINDS = {
    "parquet": lambda path, seed: parquet(path),
    "oqmd": lambda path, seed: oqmd(path),
    "cif": lambda folder, seed: cif_folder(folder),
    "poscar": lambda folder, seed: poscar_folder(folder),
    "extxyz": lambda path, seed: extxyz_file(path),
    "generated": lambda n, seed: generated(_number(n), seed),
    "alexandria": lambda place, seed: alexandria(place),
    "jarvis": lambda path, seed: jarvis(path),
    "lemat": lambda place, seed: lemat(place),
    "mp36k": lambda folder, seed: mp36k(folder),
    "mp90k": lambda folder, seed: mp90k(folder),
    "materials_project": lambda system, seed: materials_project(**({} if system == "all" else {"chemsys": system})),
    "optimade": lambda url, seed: optimade(url),
    "formulas": lambda path, seed: formulas(path),
    "amcsd": lambda place, seed: amcsd(place),
}


def _number(text):
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"how many crystals to generate? {text!r} is no number of them")
    return int(text)


def prepare(
    source: Source,
    folder: str | Path,
    *,
    seed: int = 0,
    hkl: bool = False,
    structure: bool = False,
    n_workers: int | None = None,
    scheduler: str | None = None,
    time_limit: float = TIME_LIMIT,
    progress: bool = True,
) -> tuple[int, int]:
    """Write a dataset of the crystals of a Source to a folder; where it was begun there, go on.

    Crystals that were refused, by their reader or here, are listed in rejects.parquet.  Splits by formula are drawn
    from the seed where the source has none.  hkl: store reflections and cells, too; structure: cells and atoms.
    n_workers: processes (default: the cores available); scheduler: address of a Dask scheduler, whose workers are used
    instead.  time_limit: seconds after which a crystal is given up.  The dataset depends on neither of these three.
    Returns (accepted, rejected) counts.  Raises ValueError for a number that cannot be, DatasetError as Writer does.
    """
    if seed < 0:
        raise ValueError(f"seed {seed}: it must not be negative")
    if not 0 < time_limit <= MAX_TIME_LIMIT:  # not so of NaN either
        raise ValueError(f"a time limit of {time_limit:g} s: it must be more than 0 s and at most {MAX_TIME_LIMIT:g} s")
    if n_workers is not None and not 0 < n_workers <= MAX_WORKERS:
        raise ValueError(f"{n_workers} workers: there must be at least 1 and at most {MAX_WORKERS}")
    metadata = {
        "source": source.metadata,
        "wavelength": {"name": "CuKa", "angstrom": CU_KA},
        "two_theta_range": list(STORED_RANGE),
        "symprec": SYMPREC,
        "seed": seed,
    }
    at_work = workers.cluster(scheduler) if scheduler else workers.pool(n_workers or joblib.cpu_count())
    labels = tuple(source.metadata.get("labels", ()))
    work = Work(seed, hkl, structure, time_limit, source.warm_up, labels)
    try:
        with Writer(folder, metadata, hkl, structure, labels) as writer:
            _fill(writer, source, work, at_work, progress)
            writer.finish()
            return writer.n_accepted, writer.n_rejects
    except (OSError, workers.WorkersFailed, KeyboardInterrupt) as error:
        error.add_note(
            f"finished shards in {folder} are kept: once this is mended, the same command goes on from there"
        )
        raise


def _fill(writer, source, work, at_work, progress):
    """Everything from the first record on that is in no finished shard."""
    records, distinct = source.records(), source.distinct() if source.distinct else None
    for batch in writer.resume(records):
        if distinct:
            distinct(batch)

    def done():
        return writer.n_accepted if source.enough else writer.n_records

    def is_full():
        return writer.is_finished or (source.enough is not None and writer.n_accepted == source.enough)

    if is_full():
        return
    bar = tqdm(
        desc=f"prepare {storable(writer.folder.name)}",
        total=source.enough or source.n_records,
        initial=done(),
        unit="crystal",
        smoothing=0.05,
        disable=not progress,
    )
    with at_work as (submit, n), bar:
        chunks = workers.chunks(records, CHUNK_RECORDS)
        with closing(workers.in_order(submit, work, chunks, ahead=n * workers.CHUNKS_AHEAD)) as results:
            for chunk, result in results:
                piece = work.lost(result) if isinstance(result, workers.Lost) else result
                if distinct:
                    piece = piece.without_repeats(distinct)
                if source.enough:
                    piece = piece.up_to(source.enough - writer.n_accepted)
                writer.add(chunk[: piece.n_records], piece)
                bar.set_postfix(rejected=writer.n_rejects, refresh=False)
                bar.update(done() - bar.n)
                if is_full():
                    return


def summary(folder: Path, seconds: float) -> Iterator[str]:
    """Lines that say what a dataset holds and why crystals were rejected, the numbers in the reasons left out."""
    meta = json.loads((folder / "dataset.json").read_text())
    accepted = sum(meta["counts"].values())
    size = sum((folder / shard["file"]).stat().st_size for shard in meta["shards"])
    counted = f"{accepted} crystals, {meta['rejects']} rejected"
    yield f"{storable(str(folder))}: {counted}; {seconds:.0f} s, {size / accepted:.0f} bytes a crystal"
    reasons = pq.read_table(pa.memory_map(os.fsencode(folder / "rejects.parquet")))["reason"].to_pylist()
    classes = Counter(re.sub(r"'.*?'|\S*\d\S*", "#", reason)[:90] for reason in reasons)
    for reason, count in classes.most_common(20):
        yield f"{count:8d}  {reason}"
    if reasons:
        yield f"each is in {storable(str(folder / 'rejects.parquet'))}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="xxlib prepare", description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("source", help="file, folder or URL of the crystals, or how many to generate")
    parser.add_argument(
        "folder", type=Path, help="where the dataset goes; where it was begun there, it is gone on with"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the splits by formula and of the generator")
    parser.add_argument("--hkl", action="store_true", help="store a reflection of each line and the cell, too")
    parser.add_argument("--structure", action="store_true", help="store the crystals, too: cell and atoms")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: the cores available)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster that does the work: tcp://host:port")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, metavar="S", help="of one crystal, in seconds")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        prepare(
            KINDS[options.kind](options.source, options.seed),
            options.folder,
            seed=options.seed,
            hkl=options.hkl,
            structure=options.structure,
            n_workers=options.workers,
            scheduler=options.scheduler,
            time_limit=options.time_limit,
        )
    except (ValueError, OSError, workers.WorkersFailed, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted"
        sys.exit("; ".join([f"prepare: {reason}", *getattr(error, "__notes__", [])]))
    print(*summary(options.folder, time.monotonic() - start), sep="\n")


if __name__ == "__main__":
    main()
