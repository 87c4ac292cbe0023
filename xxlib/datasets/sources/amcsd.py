"""The American Mineralogist Crystal Structure Database, as the package larixite carries it: minerals, as measured.

Downs & Hall-Wallace, American Mineralogist 88, 247 (2003).  pip install larixite
"""

from xxlib.crystals.cif import crystal_from_cif_bytes
from xxlib.datasets.sources import Record, Source


def amcsd(place="amcsd"):
    """Source of all structures of AMCSD; raises ValueError where larixite is not installed.

    place: the word amcsd, since a package has them and no file.
    """
    if place != "amcsd":
        raise ValueError(f"{place}: AMCSD comes with the package larixite, not as a file: give the word amcsd instead")
    try:
        from larixite.amcsd import get_amcsd
    except ImportError as error:
        raise ValueError(f"AMCSD comes with a package that is not installed ({error}): pip install larixite") from error
    from larixite import __version__ as version

    database = get_amcsd()
    rows = sorted(row.id for row in database.get_all("cif"))

    def records():
        for number in rows:
            text = database.get_cif(number).ciftext
            yield Record(f"amcsd-{number}", f"AMCSD {number}", text.encode(), _read)

    metadata = {
        "kind": "amcsd", "name": "AMCSD", "labels": {}, "version": f"larixite {version}",
        "cite": "Downs & Hall-Wallace, American Mineralogist 88, 247 (2003)",
    }  # fmt: skip
    return Source(metadata, records, len(rows))


def _read(id, content):
    return crystal_from_cif_bytes(content, id)
