"""Crystals of JARVIS-DFT (jarvis.nist.gov): the file of its 3D materials."""

import json
import re
import zipfile
from functools import partial
from pathlib import Path

from xxlib.crystals.structures import crystal_from_jarvis_dict, refusing
from xxlib.datasets.sources import Source, read_labels, refused
from xxlib.datasets.sources.json_lists import records_of_list

URL = "https://doi.org/10.6084/m9.figshare.6815699"
OPENING = re.compile(rb"\s*\[")


def jarvis(path):
    """Source of the dft_3d file of JARVIS-DFT, as downloaded from figshare (jdft_3d-...json.zip) or unpacked.

    It holds a list of dicts, in which "na" stands for what is missing.  Raises ValueError where it is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file: the dft_3d file (jdft_3d-...json.zip) is at {URL}")
    member = None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".json") and not name.startswith("__")]
        if len(members) != 1:
            raise ValueError(f"{path} holds {len(members)} .json files, not the one of dft_3d: see {URL}")
        member = members[0]
    metadata = {
        "kind": "jarvis",
        "name": "JARVIS-DFT, 3D",
        "version": member or path.name,
        "licence": "see jarvis.nist.gov; cite Choudhary et al., npj Comput. Mater. 6, 173 (2020)",
        "url": URL,
        "functional": "OptB88vdW",
        "labels": {
            "e_form": "formation_energy_peratom, OptB88vdW, eV/atom",
            "band_gap": "optb88vdw_bandgap, OptB88vdW, eV",
            "space_group": "spg_number",
        },
    }
    return Source(metadata, partial(_records, path, member))


def _records(path, member):
    try:
        if member is None:
            with open(path, "rb") as file:
                yield from records_of_list(file.read, OPENING, path.name, _describe, _read)
        else:
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                yield from records_of_list(file.read1, OPENING, path.name, _describe, _read)
    except (OSError, zipfile.BadZipFile) as error:
        yield refused(path.name, path.name, f"cannot be read: {error}")


def _describe(entry):
    return entry["jid"], read_labels(
        e_form=entry.get("formation_energy_peratom"),
        band_gap=entry.get("optb88vdw_bandgap"),
        space_group=entry.get("spg_number"),
    )


def _read(id, text):
    with refusing("entry"):
        atoms = json.loads(text)["atoms"]
    return crystal_from_jarvis_dict(atoms, id)
