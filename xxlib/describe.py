"""A dataset of crystals -> what robocrystallographer (Ganose and Jain, MRS Commun. 9, 874 (2019)) writes of each.

python -m xxlib.describe data/mine --workers 8

It writes descriptions.parquet, columns id and description, into the folder of the dataset, which was prepared with
--structure; a model with an encoder of "description" reads it.  Ten seconds a crystal: for those who have hours.
Interrupted or killed, the same command goes on where it was.  Words of your own may stand in such a file as well.

robocrystallographer asks for an older pandas than this kit, and works with the kit's:
    pip install inflect pubchempy && pip install --no-deps robocrys matminer
"""

import argparse
import json
import sys
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from xxlib.datasets.preparing import workers
from xxlib.datasets.preparing.describing import written
from xxlib.datasets.store import DESCRIPTIONS, Dataset, DatasetError
from xxlib.datasets.writing import locked, write_atomically

TIME_LIMIT = 600.0  # s, of one crystal
PART = "descriptions.part.jsonl"  # a line a crystal, while the work is under way


def describe(
    folder: str | Path, n_workers: int = 1, time_limit: float = TIME_LIMIT, progress: bool = True
) -> dict[str, str]:
    """Write descriptions.parquet into the folder of a dataset, or go on with it: {id: why} of crystals without one.

    Raises DatasetError where the dataset has no structures, or descriptions already, or another process is at it.
    """
    dataset, path = Dataset(folder), Path(folder) / DESCRIPTIONS
    if not dataset.has_structure:
        raise DatasetError(f"{folder} has no structures to describe: prepare it with --structure")
    if path.exists():
        raise DatasetError(f"{path} is there already: remove it to have it written anew")
    try:
        with locked(path.with_name("descriptions.lock")):
            found = _all(dataset, path.with_name(PART), n_workers, time_limit, progress)
            table = pa.table({"id": [one[0] for one in found], "description": [one[1] for one in found]})
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            write_atomically(path, sink.getvalue())
            path.with_name(PART).unlink()
    except BlockingIOError as error:
        raise DatasetError(f"another process describes {folder}: wait for it or end it") from error
    return {id: why for id, _, why in found if why}


def _all(dataset, part, n_workers, time_limit, progress):
    """(id, description, why there is none) of every crystal of a dataset; each is kept in a file as it comes."""
    found = _begun(part)
    ids, has = dataset.column("id")[:], dataset.lengths("atom_ids", np.arange(len(dataset))) > 0
    left = [row for row in np.flatnonzero(has) if ids[row] not in found]
    bar = tqdm(total=len(found) + len(left), initial=len(found), unit="crystal", desc="describe", disable=not progress)
    with bar, open(part, "a") as file, workers.pool(n_workers) as (submit, n):
        chunks = ([dataset.crystal(row)] for row in left)
        results = workers.in_order(submit, partial(written, time_limit), chunks, n * workers.CHUNKS_AHEAD)
        with closing(results):
            for (crystal,), result in results:
                lost = isinstance(result, workers.Lost)
                line = (crystal.id, "", _how(result, time_limit)) if lost else result[0]
                file.write(json.dumps(line) + "\n")
                file.flush()
                found[crystal.id] = line
                bar.update()
    return list(found.values())


def _how(lost, time_limit):
    return f"longer than {time_limit:g} s, twice" if lost == "SIGALRM" else f"its process died, twice ({lost})"


def _begun(part):
    """What an earlier attempt has left, by id; a last line that was not finished is taken off the file.

    Raises DatasetError where the file is damaged.
    """
    if not part.exists():
        return {}
    lines = part.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    try:
        found = {id: (id, description, why) for id, description, why in map(json.loads, whole)}
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{part} is damaged ({error}): remove it, and the work begins anew") from error
    part.write_bytes(b"".join(whole))
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="xxlib describe", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="of a dataset that was prepared with --structure")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, metavar="S", help="of one crystal, in seconds")
    options = parser.parse_args(arguments)
    if find_spec("robocrys") is None:
        sys.exit(
            "describe: robocrystallographer is not installed: pip install inflect pubchempy && "
            "pip install --no-deps robocrys matminer"
        )
    try:
        refused = describe(options.folder, options.workers, options.time_limit)
    except (ValueError, OSError, workers.WorkersFailed, KeyboardInterrupt) as error:
        sys.exit(f"describe: {str(error) or 'interrupted: the same command goes on'}")
    print(f"{options.folder / DESCRIPTIONS} is written; {len(refused)} crystals have no description")
    for id, why in list(refused.items())[:20]:
        print(f"  {id}: {why}")


if __name__ == "__main__":
    main()
