"""Crystals of LeMat-Bulk (huggingface.co/datasets/LeMaterial/LeMat-Bulk): many crystals, no labels of ours."""

import json
from functools import partial
from pathlib import Path

import pyarrow as pa

from xxlib.crystals.structures import crystal_from_optimade, refusing
from xxlib.datasets.sources import Record, Source, parquet_file, refused

URL = "https://huggingface.co/datasets/LeMaterial/LeMat-Bulk"
STRUCTURE = ["lattice_vectors", "cartesian_site_positions", "species_at_sites", "species", "dimension_types"]
NEEDED = ["immutable_id", *STRUCTURE[:4]]


def lemat(place):
    """Source of the parquet files of a configuration of LeMat-Bulk (compatible_pbe, ...): a folder of them, or one.

    The columns are those of OPTIMADE.  It has energies but no formation energies and no band gaps, so that these
    crystals serve pretraining only.  Raises ValueError where a file or a column is missing.
    """
    place = Path(place)
    paths = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
    if not paths:
        raise ValueError(f"{place} holds no .parquet file: LeMat-Bulk is at {URL}")
    n_records = 0
    for path in paths:
        try:
            file = parquet_file(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is no parquet file: {error}") from error
        missing = [name for name in NEEDED if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"{path} is no file of LeMat-Bulk: it has no column {', '.join(missing)}")
        n_records += file.metadata.num_rows
    metadata = {
        "kind": "lemat",
        "name": f"LeMat-Bulk, {place.name}",
        "version": [path.name for path in paths],
        "licence": "CC BY 4.0; cite Siron et al., LeMat-Bulk (2025)",
        "url": URL,
        "functional": "that of the configuration; see its column `functional`",
        "labels": {},  # energy is a total energy: no formation energy without the elements of the same calculation
    }
    return Source(metadata, partial(_records, paths), n_records)


def _records(paths):
    for path in paths:
        row = 0
        try:
            file = parquet_file(path)
            columns = [name for name in ("immutable_id", *STRUCTURE) if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=1000, columns=columns):
                for content in batch.to_pylist():
                    place, id = f"{path.name} row {row}", content.pop("immutable_id")
                    row += 1
                    yield Record(id, place, content, _read) if id else refused(place, place, "no immutable_id")
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            place = f"{path.name} row {row}"
            yield refused(place, place, f"the rest of the file cannot be read: {error}")


def _read(id, row):
    with refusing("row of LeMat-Bulk"):
        attributes = {name: value for name, value in row.items() if value is not None}
        attributes["species"] = json.loads(attributes["species"])
    return crystal_from_optimade(attributes, id)
