"""Crystals of the Materials Project through its own client, mp-api (pip install mp-api)."""

import os
from functools import partial
from itertools import count

from xxlib.crystals.crystal import RejectedCrystal
from xxlib.crystals.structures import crystal_from_pymatgen_dict, refusing
from xxlib.datasets.sources import Record, Source, read_labels, refused

PAGE = 1000  # materials in one request
FIELDS = ["material_id", "structure", "formation_energy_per_atom", "band_gap", "symmetry"]
KEYS = "https://next-gen.materialsproject.org/api"


def materials_project(endpoint=None, **query):
    """Source of the materials that MPRester.materials.summary.search finds for a query, such as elements=["Li"].

    All of them without a query; without deprecated ones and those of GNoME, whose licence is not that of the others.
    The key is read from MP_API_KEY; `endpoint` is for another server of the same kind.  Raises ValueError without
    client or key, OSError where the server does not answer.
    """
    key = os.environ.get("MP_API_KEY")
    if not key:
        raise ValueError(f"the environment variable MP_API_KEY is not set: your key is at {KEYS}")
    rester = _rester(key, endpoint)
    metadata = {
        "kind": "materials_project",
        "name": "Materials Project",
        "version": rester.db_version,
        "licence": "CC BY 4.0; cite Jain et al., APL Mater. 1, 011002 (2013)",
        "url": rester.endpoint,
        "query": query,
        "functional": "PBE, PBE+U and r2SCAN, mixed and corrected by the Materials Project",
        "labels": {
            "e_form": "formation_energy_per_atom of the summary, PBE(+U)/r2SCAN, corrected, eV/atom",
            "band_gap": "band_gap of the summary, of the calculation that it chose, eV",
            "space_group": "symmetry.number",
        },
    }
    return Source(metadata, partial(_records, key, endpoint, query))


def _rester(key, endpoint):
    try:
        from mp_api.client import MPRester
        from mp_api.client.core import MPRestError
    except ImportError as error:
        raise ValueError("the Materials Project needs its client: pip install mp-api") from error
    try:
        return MPRester(key, endpoint=endpoint, use_document_model=False, mute_progress_bars=True)
    except MPRestError as error:
        raise ValueError(f"Materials Project: {error}") from error


def _records(key, endpoint, query):
    from mp_api.client.core import MPRestError

    options = {"deprecated": False, "include_gnome": False, **query}
    with _rester(key, endpoint) as rester:
        for page in count(1):
            try:
                documents = rester.materials.summary.search(
                    **options, fields=FIELDS, chunk_size=PAGE, num_chunks=1, _page=page, _sort_fields="material_id"
                )
            except MPRestError as error:
                raise OSError(f"Materials Project, page {page}: {error}") from error
            if not documents:
                return
            for number, document in enumerate(documents, start=1):
                yield record_of_document(document, f"Materials Project page {page} entry {number}")


def record_of_document(document, place):
    """Record of a document (a dict) of the summary."""
    try:
        with refusing("document"):
            id, structure, symmetry = str(document["material_id"]), document["structure"], document.get("symmetry")
            columns = read_labels(
                e_form=document.get("formation_energy_per_atom"),
                band_gap=document.get("band_gap"),
                space_group=symmetry and symmetry.get("number"),
            )
    except RejectedCrystal as error:
        return refused(place, place, str(error))
    # mp-api makes pymatgen's objects of what it receives.
    content = structure if structure is None or isinstance(structure, dict) else structure.as_dict()
    return Record(id, place, content, _read, columns)


def _read(id, structure):
    return crystal_from_pymatgen_dict(structure, id)
