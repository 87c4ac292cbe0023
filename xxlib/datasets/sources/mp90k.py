"""mp90k made again from public files: mp36k and further crystals of the Materials Project.

Further crystals: CIF files of github.com/fxcoudert/topology_databases (Materials Project of February 2025).  Their
labels and split: mp90k_labels.parquet beside this module, by mp_id, with where each energy is from: the MEGNet release
of 2018.6.1, github.com/CompRhys/roost (2019 and 2020), AtomicGraphNets.jl, or matbench where only one of its energies
was left for the formula ("elimination", inferred).  A formula has the split that it has in mp36k.
"""

import zipfile
import zlib
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq

from xxlib.crystals.cif import crystal_from_cif_bytes
from xxlib.crystals.crystal import MAX_FILE_BYTES, RejectedCrystal
from xxlib.datasets.sources import Record, Source, read_labels, refused
from xxlib.datasets.sources.mp36k import mp36k, tree_with

COMMIT = "41163fcf"
CRYSTALS = f"https://github.com/fxcoudert/topology_databases/archive/{COMMIT}.zip"
TABLE = Path(__file__).with_name("mp90k_labels.parquet")


def mp90k(folder):
    """Source of the crystals of mp90k from a folder with the public files, under any sub-folder.

    The three files of mp36k, and the archive of the further crystals (CRYSTALS, any name ending in .zip) as it is or
    unpacked.  An id of the table without a file is refused.  Raises ValueError where an archive is missing.
    """
    folder = Path(folder)
    first, rows = mp36k(folder), label_table()
    tree = tree_with(folder, f"cif/{rows[0]['mp_id']}.cif", CRYSTALS)
    metadata = first.metadata | {
        "kind": "mp90k",
        "name": "mp90k",
        "version": f"{first.metadata['version']}; further crystals at {COMMIT}",
        "licence": first.metadata["licence"] + "; of the further crystals also Goodall and Lee, Nat. Commun. 11, 6280 "
        "(2020), and Dunn et al., npj Comput. Mater. 6, 138 (2020)",
        "url": f"{first.metadata['url']} {CRYSTALS}",
        "labels": {name: f"{of_mp36k}; {TABLE.name}" for name, of_mp36k in first.metadata["labels"].items()},
        "split": f"{first.metadata['split']}, {TABLE.name}",
    }
    n_records = first.n_records + len(rows)
    return Source(metadata, lambda: chain(first.records(), _records(tree, rows)), n_records)


def label_table():
    """Of every further crystal a dict of mp_id, e_form (eV/atom), band_gap (eV), split and e_form_source."""
    return pq.read_table(TABLE).to_pylist()


def _records(tree, rows):
    for row in rows:
        mp_id, place = row["mp_id"], f"cif/{row['mp_id']}.cif"
        try:
            with (tree / "cif" / f"{mp_id}.cif").open("rb") as opened:
                data = opened.read(MAX_FILE_BYTES + 1)
            columns = read_labels(e_form=row["e_form"], band_gap=row["band_gap"])
        except (FileNotFoundError, KeyError):
            yield refused(mp_id, place, "its CIF file is not in the archive")
        except (RejectedCrystal, OSError, zipfile.BadZipFile, zlib.error) as error:
            yield refused(mp_id, place, str(error) or type(error).__name__)
        else:
            yield Record(mp_id, place, data, _read, columns | {"split": row["split"]})


def _read(id, data):
    return crystal_from_cif_bytes(data, id)
