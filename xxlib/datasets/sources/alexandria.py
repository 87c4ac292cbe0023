"""Crystals of Alexandria (alexandria.icams.rub.de), the database that the paper pretrains and trains on."""

import bz2
import json
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

from xxlib.crystals.structures import crystal_from_pymatgen_dict, refusing
from xxlib.datasets.sources import Source, check_file, read_labels, refused
from xxlib.datasets.sources.json_lists import records_of_list

PBE_3D = "https://alexandria.icams.rub.de/data/pbe/"  # the 2D and 1D collections hold vacuum
NAME = re.compile(r"alexandria_\d+\.json\.bz2")
OPENING = re.compile(rb'\s*\{[^{}\[\]]*?"entries"\s*:\s*\[')
MAX_PAGE = 10_000_000  # bytes


def alexandria(place):
    """Source of the files alexandria_NNN.json.bz2 of a folder, of a page on the server such as PBE_3D, or of a list.

    What is on the server is downloaded file by file, each when its turn comes.  Each file holds {"entries": [...]} of
    pymatgen's ComputedStructureEntry; the id is its data.mat_id.
    """
    if _is_url(place):
        files = listing(place)
    elif isinstance(place, (str, Path)):
        files = sorted(path for path in Path(place).glob("*.json.bz2") if NAME.fullmatch(path.name))
    else:
        files = list(place)
    if not files:
        raise ValueError(f"{place} holds no file alexandria_NNN.json.bz2: they are at {PBE_3D}")
    metadata = {
        "kind": "alexandria",
        "name": "Alexandria, PBE, 3D",
        "version": [str(file).rsplit("/", 1)[-1] for file in files],
        "licence": "CC BY 4.0; cite Schmidt et al., Adv. Mater. 35, 2210788 (2023)",
        "url": PBE_3D,
        "functional": "PBE",
        "labels": {
            "e_form": "data.e_form, PBE, eV/atom",
            "band_gap": "data.band_gap_ind, the indirect gap, PBE, eV",
            "space_group": "data.spg",
        },
    }
    return Source(metadata, partial(_records, files))


def _is_url(place):
    return str(place).startswith(("http://", "https://"))


def listing(url=PBE_3D):
    """URLs of the files alexandria_NNN.json.bz2 that the page of a folder on the server links to, sorted by name."""
    with urlopen(url, timeout=60) as response:
        page = response.read(MAX_PAGE).decode("utf-8", errors="replace")
        url = response.url  # after redirections
    links = _Links()
    links.feed(page)
    files = {urljoin(url, link) for link in links.targets if NAME.fullmatch(link.rsplit("/", 1)[-1])}
    if not files:
        raise ValueError(f"{url} links to no file alexandria_NNN.json.bz2")
    return sorted(files)


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets = []

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            self.targets += [value for name, value in attributes if name == "href" and value]


def _records(files):
    for file in files:
        if _is_url(file):
            from xxlib.datasets.downloads import fetch

            file = fetch(file)
        yield from _records_of_file(Path(file))


def _records_of_file(path):
    try:
        check_file(path)
        with bz2.open(path) as file:
            # read1 gives what precedes an error.
            yield from records_of_list(file.read1, OPENING, path.name, _describe, _read)
    except (OSError, ValueError) as error:
        yield refused(path.name, path.name, f"cannot be read: {error}")


def _describe(entry):
    data = entry["data"]
    return data["mat_id"], read_labels(
        e_form=data.get("e_form"), band_gap=data.get("band_gap_ind"), space_group=data.get("spg")
    )


def _read(id, text):
    with refusing("entry"):
        structure = json.loads(text)["structure"]
    return crystal_from_pymatgen_dict(structure, id)
