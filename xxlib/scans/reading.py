"""A diffractometer file -> Scan.  The kind of file is recognised by its content, not by its name."""

import re
from dataclasses import replace
from pathlib import Path

from xxlib.scans import instrument_binary, instrument_text, instrument_xml
from xxlib.scans.checks import understood
from xxlib.scans.columns import read_columns
from xxlib.scans.powder_cif import read_pdcif
from xxlib.scans.scan import DAMAGED, MAX_BYTES, MAX_SCANS, Scan, ScanError, checked

BINARY = {
    b"RAW ": instrument_binary.read_bruker_1,
    b"RAW2": instrument_binary.read_bruker_2,
    b"RAW1.01": instrument_binary.read_bruker_3,
    b"RAW4.00": instrument_binary.read_bruker_4,
    b"V3RD": instrument_binary.read_philips_rd,
    b"V5RD": instrument_binary.read_philips_rd,
    b"PK\x03\x04": instrument_xml.read_zip,
}
TEXT = (
    (r"<xrdMeasurements", lambda text: instrument_xml.read_xrdml(re.sub(r"^<\?xml.*?\?>", "", text.lstrip()))),
    (r"^\*RAS_DATA_START", instrument_text.read_rigaku_ras),
    (r"^\*(GROUP_COUNT|BEGIN)\b", instrument_text.read_rigaku_dat),
    (r"^_(2THETA)?(COUNTS|CPS)", instrument_text.read_uxd),
    (r"^RawScan\b", instrument_text.read_udf),
    (r"^BANK\s+\d+\s", instrument_text.read_gsas),
    (r"^data_\S", read_pdcif),
)
EXPORT = "Export the scan from the program of the diffractometer as .xy (two columns: 2θ in degree, intensity)"
REFUSED = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"GIF8": "a GIF picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"BM": "a BMP picture",
    b"%PDF": "a PDF document",
    b"{\\rtf": "an RTF document",
    b"\xd0\xcf\x11\xe0": "an old Word or Excel file",
    b"\x1f\x8b": "a compressed file (unpack it first)",
    b"BZh": "a compressed file (unpack it first)",
    b"7z\xbc\xaf": "a compressed archive (unpack it first)",
    b"Rar!": "a compressed archive (unpack it first)",
    b"\x89HDF": "an HDF5 or NeXus file, which is not supported",
    b"PAR1": "a parquet table",
    b"RAW_1": "a STOE RAW file, which is not supported",
    b"FI\0": "a binary Rigaku RAW file, which is not supported",
}
REFUSED_TEXT = (
    (r"\A\s*(<!doctype html|<html)", "a web page, not the file behind it. Download the file itself"),
    (r"\A\s*##(title|jcamp-?dx) ?=", "a JCAMP-DX file, in which only some points have an angle. " + EXPORT),
    (r"\A\s*<", "an XML file of an unknown kind. " + EXPORT),
    (r"\A\s*[{\[]\s*[\"{\[\d]", "a JSON file. " + EXPORT),
)


def read_scan(path: str | Path, scan: int | None = None) -> Scan:
    """The Scan of a diffractometer file.

    Reads columns of text (any separator, decimal comma, header, encoding), PANalytical .xrdml, Rigaku .rasx .ras .dat,
    Bruker .raw (versions 1 to 4) .brml .uxd, Philips .rd .udf, GSAS (STD, ESD, FXY, FXYE) and pdCIF.
    scan: which one, from 0, of a file with several; without it the first that can be used is taken and a warning says
    so.
    Raises ScanError, with the reason and what to do, for everything that is no powder pattern.
    """
    path = Path(path)
    try:
        return _read(path, scan)
    except ScanError as error:
        raise ScanError(f"{path.name}: {_sentence(error)}") from None


def _read(path, which):
    try:
        if not path.is_file():
            raise ScanError(f"there is no such file in {path.parent.resolve()}")
        if path.stat().st_size > MAX_BYTES:
            raise ScanError(f"the file is larger than {MAX_BYTES // 10**6} MB, which no powder scan is. {EXPORT}")
        data = path.read_bytes()
    except OSError as error:
        raise ScanError(f"the file cannot be opened ({error}). Check its name and the rights to read it") from None
    scans = understood(_scans, data)
    if not scans:
        raise ScanError(f"the file has a header but no measured points. {DAMAGED}")
    if len(scans) > MAX_SCANS:
        raise ScanError(f"the file holds {len(scans)} scans (limit {MAX_SCANS}). Export one scan only")
    if which is not None:
        if not 0 <= which < len(scans):
            raise ScanError(f"there is no scan {which}: the file holds {len(scans)}, counted from 0")
        return understood(_usable, scans[which])
    for which, candidate in enumerate(scans):
        try:
            scan = understood(_usable, candidate)
        except ScanError as error:
            scans[which] = error
        else:
            return replace(scan, warnings=(*scan.warnings, *_of_several(scans, which)))
    if len(scans) > 1:
        raise ScanError(f"none of the {len(scans)} scans can be used; the first: {scans[0]}")
    raise scans[0]


def _usable(scan):
    if isinstance(scan, ScanError):
        raise scan
    return checked(scan)


def _of_several(scans, which):
    """Warnings of a file with several scans, of which one was taken."""
    if len(scans) == 1:
        return ()
    ranges = ", ".join(f"{i}: {_range(scan)}" for i, scan in enumerate(scans[:10]))
    taken = "the first" if which == 0 else f"number {which}, the first that can be used,"
    warning = f"The file holds {len(scans)} scans ({ranges}): {taken} was taken, choose another with scan=."
    refused = [
        f"Scan {i} cannot be used: {_sentence(scan)}" for i, scan in enumerate(scans) if isinstance(scan, ScanError)
    ]
    return (warning, *refused[:3])


def _sentence(error):
    return str(error) if str(error).endswith("?") else f"{error}."


def _range(scan):
    if isinstance(scan, ScanError):
        return "not usable"
    if not len(scan.two_theta):
        return "empty"
    return f"{scan.two_theta.min():.4g}-{scan.two_theta.max():.4g} degree"


def _scans(data):
    """All scans of a file's bytes as they stand there, a ScanError in the place of one that cannot be read."""
    if not data.strip(b"\0 \r\n\t"):
        raise ScanError("the file is empty. Export or copy it again")
    for magic, what in REFUSED.items():
        if data.startswith(magic):
            raise ScanError(f"this is {what}, not a powder scan. {EXPORT}")
    if data[4:8] == b"ftyp":
        raise ScanError(f"this is a photograph or film, not a powder scan. {EXPORT}")
    for magic, read in BINARY.items():
        if data.startswith(magic):
            return read(data)
    text = _text(data)
    for pattern, read in TEXT:
        if re.search(pattern, text, re.MULTILINE):
            return read(text)
    for pattern, what in REFUSED_TEXT:
        if re.search(pattern, text, re.IGNORECASE):
            raise ScanError(f"this is {what}")
    return read_columns(text)


def _text(data):
    """Text of a file in UTF-8, UTF-16 or Latin-1; raises ScanError where it is binary."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif data[1:200:2].count(0) > 0.4 * len(data[1:200:2]):
        encoding = "utf-16-le"
    elif data[0:200:2].count(0) > 0.4 * len(data[0:200:2]):
        encoding = "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    # DOS programs end a text with control-Z.
    strange = len(re.findall(r"[\x00-\x08\x0b\x0e-\x19\x1b-\x1f\x7f]", text[:100_000]))
    if strange > 0.001 * len(text[:100_000]):
        raise ScanError(f"this is a binary file of an unknown kind. {EXPORT}")
    return text.removesuffix("\x1a")
