"""Diffractometer files: what was measured is what is read, or the file is refused in plain words."""

import io
import re
import struct
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from xxlib.scans.reading import read_scan
from xxlib.scans.scan import ScanError

# first and last angle, points, maximum and where it is: counted in the bytes of the files without the package
FILES = {
    "LuOF_lab.xy": (5.011, 134.97745, 7646, 28805, 28.64126),
    "alumina_pd.cif": (3.0, 167.95, 3300, 8042, 43.3),
    "bruker_v1.raw": (4.98, 39.98, 876, 12880, 9.14),
    "bruker_v4.raw": (37.0001, 120.0046435, 4059, 94855, 43.0137362),
    "columns_xy.txt": (20.0, 100.0, 4001, 926, 43.2),
    "columns_xye_sigma.txt": (20.0, 20.04, 3, 49, 20.0),
    "corundum_bruker_v2.raw": (10.0, 60.0, 2501, 2716, 29.4),
    "corundum_nist1976_bruker.uxd": (20.0, 150.0, 13001, 19034, 35.14),
    "corundum_philips.rd": (5.0, 150.0, 7251, 6872, 43.3),
    "fluorapatite_gsas.xra": (15.0, 130.04, 5753, 19693, 31.86),
    "lactose.xye": (3.0, 26.875, 4776, 47896, 9.04),
    "panalytical.xrdml": (9.90343322, 100.09488522, 8301, 43174, 26.24655898),
    "rigaku.dat": (10.0, 103.12, 4657, 15559, 27.92),
    "silicon_rigaku.rasx": (8.5, 30.0, 2151, 639, 21.13),
    "synchrotron_11bm.fxye": (0.5, 49.98543193, 49493, 16601.294721, 5.06339431),
    "zeolite_philips.udf": (2.0, 69.96, 1700, 3091, 26.6),
}
INSTRUMENTS = {
    "alumina_pd.cif": {"wavelength": 1.5402, "radiation": "neutron"},
    "bruker_v1.raw": {"ka1": 1.5406, "ka2": 1.54443, "time_per_step": 4, "sample": "VINAIGRE"},
    "bruker_v4.raw": {"anode": "Cu", "ka1": 1.5406, "ka2": 1.54439, "ka2_ratio": 0.5, "scan_axis": "Locked Coupled"},
    "corundum_bruker_v2.raw": {"anode": "Cu", "ka2_ratio": 0.514, "time_per_step": 1, "step": 0.02},
    "corundum_nist1976_bruker.uxd": {"anode": "Cu", "ka1": 1.54056, "time_per_step": 20, "scan_axis": "COUPLED"},
    "corundum_philips.rd": {"anode": "Cu", "ka1": 1.54056, "ka2_ratio": 0.5, "sample": "CPD RR Corundum"},
    "panalytical.xrdml": {"anode": "Cu", "wavelength": 1.541874, "time_per_step": 13.77, "scan_axis": "Gonio"},
    "rigaku.dat": {"unit": "counts per second", "ka2": 1.5444, "sample": "SAMPLE1", "time_per_step": 10},
    "silicon_rigaku.rasx": {"anode": "Cu", "ka1": 1.540593, "time_per_step": 0.6, "sample": "RM20220915Si01"},
    "synchrotron_11bm.fxye": {"wavelength": 0.413259, "sample": "sucrose 10X"},
    "zeolite_philips.udf": {"anode": "Cu", "ka1": 1.5406, "time_per_step": 1, "sample": "zeolite 15.3.95"},
}
CUT_OFF = sorted(set(FILES) - {"LuOF_lab.xy", "columns_xy.txt", "columns_xye_sigma.txt", "lactose.xye",
                               "corundum_nist1976_bruker.uxd"})  # fmt: skip

ANGLES = np.round(20 + 0.02 * np.arange(301), 2)
COUNTS = np.round(40 + 900 * np.exp(-0.5 * ((ANGLES - 23) / 0.1) ** 2))


def rows(separator=" ", angles=ANGLES, counts=COUNTS, angle="{:.2f}", count="{:.0f}", end="\n", tail=""):
    return "".join(
        angle.format(x) + separator + count.format(y) + tail + end for x, y in zip(angles, counts, strict=True)
    )


def read(tmp_path, content, name="scan.xy", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_scan(path, **options)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_every_kind(shared_data, name):
    first, last, n, highest, place = FILES[name]
    scan = read_scan(shared_data / "formats" / name)
    assert (len(scan.two_theta), len(scan.intensity)) == (n, n)
    assert scan.two_theta[[0, -1]] == pytest.approx([first, last], abs=1e-6)
    assert scan.intensity.max() == pytest.approx(highest)
    assert scan.two_theta[scan.intensity.argmax()] == pytest.approx(place, abs=1e-6)
    assert scan.two_theta.dtype == scan.intensity.dtype == np.float64
    for field, value in INSTRUMENTS.get(name, {}).items():
        expected = value if isinstance(value, str) else pytest.approx(value, rel=2e-6)
        assert getattr(scan, field) == expected, field
    neutron = ("This is a neutron pattern: its intensities are not those of X-rays.",)
    assert scan.warnings == (neutron if name == "alumina_pd.cif" else ())


def test_a_file_is_known_by_its_content(shared_data, tmp_path):
    for name in ("corundum_philips.rd", "silicon_rigaku.rasx", "rigaku.dat", "panalytical.xrdml"):
        scan = read(tmp_path, (shared_data / "formats" / name).read_bytes(), "anything.xy")
        assert len(scan.two_theta) == FILES[name][2]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.97])
@pytest.mark.parametrize("name", CUT_OFF)
def test_a_file_that_was_cut_off_is_refused(shared_data, tmp_path, name, share):
    content = (shared_data / "formats" / name).read_bytes()
    with pytest.raises(ScanError, match=r"^scan\.raw: .*[.?)]$") as refusal:
        read(tmp_path, content[: int(share * len(content))], "scan.raw")
    if share > 0.5 and name.endswith((".raw", ".rd", ".dat", ".fxye")):
        assert "promises" in str(refusal.value)


def test_a_powder_cif_that_was_cut_off_between_two_rows_is_refused(shared_data, tmp_path):
    text = (shared_data / "formats" / "alumina_pd.cif").read_text()
    end = text.index("\n", text.index("_pd_calc_intensity_total") + 50_000)
    with pytest.raises(ScanError, match="promises 3300 points"):
        read(tmp_path, text[:end] + "\n", "scan.cif")


COMMAS = rows(";").replace(".", ",")
# name -> text or bytes of the scan (ANGLES, COUNTS)
DIALECTS = {
    "spaces": rows("   "),
    "leading spaces": "\n".join("  " + line for line in rows("  ").splitlines()),
    "tab": rows("\t"),
    "tab at the end": rows("\t", tail="\t"),
    "comma": rows(","),
    "comma and space": rows(", "),
    "comma at the end": rows(",", tail=","),
    "semicolon": rows(";"),
    "semicolon and space": rows(" ; "),
    "decimal comma, semicolon": COMMAS,
    "decimal comma, tab": COMMAS.replace(";", "\t"),
    "decimal comma, space": COMMAS.replace(";", " "),
    "CRLF": rows(end="\r\n"),
    "old Mac line ends": rows(end="\r"),
    "blank lines": rows(end="\n\n"),
    "BOM": b"\xef\xbb\xbf" + rows().encode(),
    "UTF-16": rows().encode("utf-16"),
    "UTF-16 big endian with BOM": b"\xfe\xff" + rows().encode("utf-16-be"),
    "UTF-16 without BOM": rows().encode("utf-16-le"),
    "Latin-1 header": "Probe: Größe 5 µm\n2θ Intensität\n".encode("latin-1", "replace") + rows().encode(),
    "header": "2theta(deg) intensity(counts)\n" + rows(),
    "quoted csv": '"2theta","counts"\n' + rows('","').replace("\n", '"\n"')[:-1].join(['"', ""]),
    "comments": "# made by hand\n! and checked\n" + rows() + "# the end\n",
    "comment between": rows().replace("\n", "\n# here the tube was changed\n", 1),
    "third column": rows(tail=" 6.3"),
    "third column by name": "counts,2theta,sigma\n" + "".join(f"{y:.0f},{x:.2f},6\n" for x, y in zip(ANGLES, COUNTS)),
    "index column by name": ",two_theta,intensity\n" + "".join(
        f"{i},{x:.2f},{y:.0f}\n" for i, (x, y) in enumerate(zip(ANGLES, COUNTS))
    ),
    "scientific": rows(count="{:.3e}"),
    "Fortran exponents": rows(count="{:.4e}").replace("e", "D"),
    "descending": rows(angles=ANGLES[::-1], counts=COUNTS[::-1]),
    "control-Z at the end": rows().strip() + "\x1a",
    "end of a PANalytical csv": "[Measurement conditions]\nScan axis,Gonio\nAnode material,Cu\n"
    "K-Alpha1 wavelength,1.540598\n[Scan points]\nAngle,Intensity\n" + rows(","),
}  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_of_columns(tmp_path, name):
    scan = read(tmp_path, DIALECTS[name])
    assert np.array_equal(scan.two_theta, ANGLES)
    assert np.array_equal(scan.intensity, COUNTS)
    # only what changes the data is worth a word
    assert len(scan.warnings) == (name == "descending")


def test_real_patterns_in_many_dialects(shared_data, tmp_path):
    table = pq.read_table(shared_data / "measured" / "patterns.parquet", columns=["two_theta", "intensity"])
    for row in table.take([3, 60, 120]).to_pylist():
        angles = np.round(np.array(row["two_theta"], np.float64), 4)
        counts = np.round(np.array(row["intensity"], np.float64), 3)
        text = rows(";", angles, counts, "{:.4f}", "{:.3f}")
        for content in (text, text.replace(".", ","), text.replace(";", "\t").encode("utf-16"), text.replace(";", ",")):
            scan = read(tmp_path, content)
            assert np.array_equal(scan.two_theta, angles)
            assert np.array_equal(scan.intensity, counts)


def test_thousands_separators(tmp_path):
    counts = COUNTS + 1_234_000
    written = {"{:,.0f}": [" ", ";", "\t"], "{:,.1f}": [" ", ";"]}
    for count, separators in written.items():
        for separator in separators:
            assert np.array_equal(read(tmp_path, rows(separator, counts=counts, count=count)).intensity, counts)
    german = rows(";", counts=counts, count="{:,.1f}").translate(str.maketrans(".,", ",."))
    french = rows(";", counts=counts, count="{:,.0f}").replace(",", "\u202f").replace(".", ",")
    swiss = rows(";", counts=counts, count="{:,.0f}").replace(",", "'")
    for text in (german, french, swiss):
        scan = read(tmp_path, text)
        assert np.array_equal(scan.two_theta, ANGLES)
        assert np.array_equal(scan.intensity, counts)


def test_what_a_header_says_is_kept(tmp_path):
    lines = (
        "Anode material,Cu\nK-Alpha1 wavelength,1.540598\nK-Alpha2 wavelength,1.544426\nRatio K-Alpha2/K-Alpha1,0.5\n"
    )
    scan = read(tmp_path, lines + "Angle,Intensity\n" + rows(","))
    assert (scan.anode, scan.ka1, scan.ka2, scan.ka2_ratio) == ("Cu", 1.540598, 1.544426, 0.5)
    assert read(tmp_path, "# wavelength = 0.7093 A\n" + rows()).wavelength == 0.7093
    assert read(tmp_path, "# Lambda: 1,7889\n" + rows()).wavelength == 1.7889
    assert read(tmp_path, "# anode: Mo\n" + rows()).wavelength == pytest.approx(0.71075, abs=1e-4)
    assert read(tmp_path, "2theta,cps\n" + rows(",")).unit == "counts per second"
    assert read(tmp_path, rows()).wavelength is None
    assert read(tmp_path, rows()).step == pytest.approx(0.02)


# name -> text, what the warning says
ODD = {
    "unsorted": (rows(angles=np.roll(ANGLES, 1), counts=np.roll(COUNTS, 1)), "sorted"),
    "descending": (rows(angles=ANGLES[::-1], counts=COUNTS[::-1]), "turned round"),
    "repeated angle": (rows() + "26.00 40\n", "repeat an angle"),
    "negative": (rows(counts=COUNTS - 50), "background subtracted"),
    "four columns": (rows(tail=" 1 2"), "4 columns: number 1 was taken as 2θ, 2 as the intensity"),
    "radian by name": ("2theta_rad,counts\n" + rows(",", angles=np.radians(ANGLES), angle="{:.9f}"), "converted"),
    "grazing incidence": ("Scan axis,2Theta\nAngle,Intensity\n" + rows(","), "grazing incidence"),
    "unknown axis": ("Scan axis,Q7\nAngle,Intensity\n" + rows(","), "Q7"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_read_and_said(tmp_path, name):
    text, words = ODD[name]
    scan = read(tmp_path, text)
    assert len(scan.warnings) == 1 and words in scan.warnings[0]
    assert np.allclose(scan.two_theta, ANGLES, rtol=0, atol=1e-6)
    assert np.array_equal(scan.intensity, COUNTS - 50 if name == "negative" else COUNTS)


def test_intensities_of_a_repeated_angle_are_averaged(tmp_path):
    scan = read(tmp_path, rows() + "26.00 60\n")
    assert scan.intensity[-1] == 50 and np.array_equal(scan.intensity[:-1], COUNTS[:-1])


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_txt", ".txt").replace("_xml", ".xml"), content)
    return file.getvalue()


def xrdml(angles="<startPosition>20</startPosition><endPosition>26</endPosition>", axis="Gonio", head="", extra=""):
    counts = " ".join(f"{y:.0f}" for y in COUNTS)
    return (
        f'<?xml version="1.0"?>{head}<xrdMeasurements xmlns="http://www.xrdml.com/XRDMeasurement/2.1"><xrdMeasurement>'
        "<usedWavelength><kAlpha1>1.788996</kAlpha1><kAlpha2>1.792835</kAlpha2></usedWavelength>"
        f'<scan scanAxis="{axis}" status="Completed"><dataPoints><positions axis="2Theta">{angles}</positions>'
        f"{extra}<counts unit='counts'>{counts}</counts></dataPoints></scan></xrdMeasurement></xrdMeasurements>"
    )


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
FILE_ENTITY = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
TEXT = rows()
RADIAN = rows(angles=np.radians(ANGLES), angle="{:.9f}")
# name -> content, what the message says
BAD = {
    "empty": ("", "empty"),
    "blank": (" \n\n\t\n", "empty"),
    "zero bytes": (bytes(5000), "empty"),
    "one point": ("20.0 49\n", "1 point"),
    "one column": ("49\n39\n31\n42\n", "one number a line"),
    "words only": ("two theta and intensity\nare in the other file\n", "no columns of numbers"),
    "header only": ("2theta,counts\n", "no columns of numbers"),
    "all zero": (rows(counts=0 * COUNTS), "no intensity is above zero"),
    "all negative": (rows(counts=-COUNTS), "no intensity is above zero"),
    "all equal": (rows(counts=0 * COUNTS + 7), "all intensities are equal"),
    "NaN": (TEXT.replace("\n20.10 40", "\n20.10 NaN"), "point 6 is no finite number"),
    "infinite": (TEXT.replace("\n20.10 40", "\n20.10 inf"), "no finite number"),
    "NaN angle": (TEXT.replace("\n20.10 40", "\nnan 40"), "angle of point 6"),
    "row too short": (TEXT.replace("\n20.10 40", "\n20.10"), "line 6"),
    "row too long": (TEXT.replace("\n20.10 40", "\n20.10 40 7"), "line 6 has 3 numbers"),
    "letters in a row": (TEXT.replace("\n20.10 40", "\n20.10 4O"), "line 6"),
    "dashes for a number": (TEXT.replace("\n20.10 40", "\n20.10 ---"), "line 6"),
    "two decimal points": (TEXT.replace("\n20.10 40", "\n20.1.0 40"), "line 6"),
    "words in between": (TEXT.replace("\n20.10 40", "\nbeam lost\n20.10 40"), "beam lost"),
    "mixed decimal marks": (rows(";").replace("20.10", "20,10"), "some angles have a decimal comma"),
    "commas for everything": (rows(",").replace(".", ","), "commas separate the columns and are decimal marks"),
    "doubtful thousands": (rows(angles=np.arange(20, 81), counts=np.arange(61) + 1000, angle="{:.0f}", count="{:,.0f}"),
                           "not clear whether"),
    "one angle only": (rows(angles=0 * ANGLES + 25), "only 1 different angles"),
    "channels": (rows(angles=10 * np.arange(301)), "more than 180 degree"),
    "centidegrees": (rows(angles=100 * ANGLES), "more than 180 degree"),
    "columns swapped": (rows(angles=COUNTS, counts=ANGLES), "more than 180 degree"),
    "radian": (RADIAN, "is it in radian"),
    "q too far": ("Q(1/A),I\n" + rows(","), "does not reach the scattering vector Q of 20 to 26 1/angstrom"),
    "d of zero": ("d-spacing,I\n" + rows(",", angles=ANGLES - 20), "lattice spacing d is not above zero"),
    "theta": ("Theta,Intensity\n" + rows(","), "not 2θ"),
    "energy": ("Energy (keV),counts\n" + rows(","), "an energy"),
    "omega by header": ("Omega,Intensity\n" + rows(","), "ω"),
    "rocking curve": ("Scan axis,Omega\nAngle,Intensity\n" + rows(","), "rocking curve"),
    "phi scan": ("Scan axis,Phi\nAngle,Intensity\n" + rows(","), "scan of Phi"),
    "JPEG": (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(range(256)) * 20, "JPEG picture"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "PNG picture"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(range(256)) * 20, "photograph"),
    "PDF": (b"%PDF-1.7\n" + bytes(range(256)), "PDF document"),
    "old Excel": (b"\xd0\xcf\x11\xe0" + bytes(1000) + b"x", "Excel"),
    "Excel": (zipped(xl__workbook_xml="<a/>"), "Excel workbook. Save the sheet as CSV"),
    "other zip": (zipped(readme_txt="hello"), "no Rigaku or Bruker scan"),
    "damaged zip": (zipped(Data0__Profile0_txt=TEXT)[:200], "damaged"),
    "gzip": (b"\x1f\x8b" + bytes(range(256)), "unpack it first"),
    "binary": (bytes(range(256)) * 20, "binary file of an unknown kind"),
    "web page": ("<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "JSON": ('{"two_theta": [1, 2]}', "JSON"),
    "other XML": ("<svg></svg>", "XML file of an unknown kind"),
    "structure CIF": ("data_x\n_cell_length_a 4\nloop_\n_atom_site_label\nNa\n", "crystal structure"),
    "STOE": (b"RAW_1.06Powdat" + bytes(range(256)), "STOE RAW file, which is not supported"),
    "RAW of zeros": (b"RAW4.00\0" + bytes(2000), "damaged"),
    "RAW1 of zeros": (b"RAW " + bytes(2000), "promises 0 points"),
    "RAW2 of ones": (b"RAW2\1\0" + b"\xff" * 2000, "damaged"),
    "RAW3 without scans": (b"RAW1.01\0" + bytes(2000), "no measured points"),
    "RD of ones": (b"V3RD" + b"\xff" * 2000, "damaged"),
    "RAW4 of ones": (b"RAW4.00\0" + b"\xff" * 2000, "damaged"),
    "XML bomb": (xrdml(head=LAUGHS), "document type or entities"),
    "XML that reads files": (xrdml(head=FILE_ENTITY), "document type or entities"),
    "XML with a document type": (xrdml(head='<!DOCTYPE x SYSTEM "x.dtd">'), "document type or entities"),
    "XML cut off": (xrdml()[:-40], "damaged"),
    "XRDML rocking curve": (xrdml("<commonPosition>20</commonPosition>", "Omega"), "2θ did not move"),
    "XRDML with few angles": (xrdml("<listPositions>1 2 3</listPositions>"), "3 angles but 301"),
    "counting time of zero": (xrdml(extra=f"<countingTimes>{'0 ' * 301}</countingTimes>"), "counting times"),
    "too few counting times": (xrdml(extra="<countingTimes>1 1</countingTimes>"), "counting times"),
    "UXD rocking curve": ("_DRIVE='THETA'\n_STEPSIZE=0.02\n_START=20\n_COUNTS\n" + "5 6 7\n" * 99, "scan of THETA"),
    "UXD with letters": ("_DRIVE='COUPLED'\n_STEPSIZE=0.02\n_START=20\n_COUNTS\n5 6 x\n", "something else"),
    "RAS rocking curve": ('*RAS_DATA_START\n*RAS_HEADER_START\n*MEAS_SCAN_AXIS_X "Omega"\n*RAS_HEADER_END\n'
                          "*RAS_INT_START\n" + rows(tail=" 1") + "*RAS_INT_END\n", "scan of Omega"),
    "GSAS time of flight": ("title\nBANK 1 10 1 SLOG 1000 20000 0.0004 0 FXYE\n" + TEXT, "time-of-flight"),
    "GSAS of another type": ("title\nBANK 1 10 1 CONST 1500 2 0 0 ALT\n" + TEXT, "ALT are not supported"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_plain_words(tmp_path, name):
    content, words = BAD[name]
    with pytest.raises(ScanError) as refusal:
        read(tmp_path, content, "my scan.xy")
    message = str(refusal.value)
    assert message.startswith("my scan.xy: ") and words in message
    assert not re.search(r"Error|Traceback|struct\.|\bNone\b|\n", message)


def test_a_missing_file(tmp_path):
    with pytest.raises(ScanError, match=r"absent\.xy: there is no such file in"):
        read_scan(tmp_path / "absent.xy")


def test_archives_are_not_unpacked_without_end(tmp_path, monkeypatch):
    from xxlib.scans import instrument_xml

    monkeypatch.setattr(instrument_xml, "MAX_BYTES", 1_000_000)
    bomb = zipped(Data0__Profile0_txt="0" * 50_000_000)
    assert len(bomb) < 100_000
    with pytest.raises(ScanError, match="unpacks to more than 1 MB"):
        read(tmp_path, bomb, "bomb.rasx")
    # the size in the archive's own list is a lie
    at = bomb.rindex(b"PK\x01\x02")
    lying = bomb[: at + 24] + struct.pack("<I", 10) + bomb[at + 28 :]
    with pytest.raises(ScanError):
        read(tmp_path, lying, "bomb.rasx")
    with pytest.raises(ScanError, match="more than one scan has"):
        read(tmp_path, zipped(**{f"Data0__x{i}_txt": "" for i in range(2001)}), "bomb.brml")


def test_several_scans_in_a_file(tmp_path):
    second = rows(counts=COUNTS[::-1])
    uxd = "".join(
        f"; range\n_DRIVE='COUPLED'\n_STEPSIZE=0.02\n_START={start}\n_COUNTS\n"
        + " ".join(f"{y:.0f}" for y in counts)
        + "\n"
        for start, counts in ((20, COUNTS), (30, COUNTS[::-1]))
    )
    head = struct.pack("<IffIIffff32sff72s", 301, 1, 0.02, 0, 0, 20, 0, 0, 0, b"", 1.5406, 1.5444, b"")
    data = COUNTS.astype("<f4").tobytes(), COUNTS[::-1].astype("<f4").tobytes()
    raw = b"RAW " + head + struct.pack("<I", 1) + data[0] + b"RAW " + head + struct.pack("<I", 0) + data[1]
    for content in (TEXT + second, TEXT + "2theta counts\n" + second, uxd, raw):
        scan = read(tmp_path, content)
        assert np.array_equal(scan.intensity, COUNTS)
        assert "2 scans (0: 20-26 degree, 1: " in scan.warnings[0] and "choose another with scan=" in scan.warnings[0]
        scan = read(tmp_path, content, scan=1)
        assert np.array_equal(scan.intensity, COUNTS[::-1]) and not scan.warnings
        with pytest.raises(ScanError, match="there is no scan 2: the file holds 2, counted from 0"):
            read(tmp_path, content, scan=2)


def test_bruker_3(tmp_path):
    """No real file of this version was at hand: one is built from the description of its layout."""
    head = bytearray(712)
    head[:8], head[12:16], head[608:610], head[326:331] = b"RAW1.01\0", struct.pack("<I", 1), b"Co", b"steel"
    head[624:656] = struct.pack("<4d", 1.788996, 1.792835, 1.62083, 0.5)
    part = bytearray(304 + 8)
    part[:24] = struct.pack("<IIdd", 304, len(COUNTS), 10.0, 20.0)
    part[176:184], part[192:196], part[256:260] = struct.pack("<d", 0.02), struct.pack("<f", 2.5), struct.pack("<I", 8)
    scan = read(tmp_path, bytes(head) + bytes(part) + COUNTS.astype("<f4").tobytes())
    assert np.allclose(scan.two_theta, ANGLES) and np.array_equal(scan.intensity, COUNTS)
    assert (scan.anode, scan.ka1, scan.time_per_step, scan.sample) == ("Co", 1.788996, 2.5, "steel")


def test_bruker_4_of_another_drive(shared_data, tmp_path):
    content = (shared_data / "formats" / "bruker_v4.raw").read_bytes()
    start = struct.pack("<d", 37.0001)
    assert content.count(start) == 2  # of the scan and of its drive 2Theta
    at = content.index(start)
    moved = content[:at] + struct.pack("<d", 18.5) + content[at + 8 :]
    with pytest.raises(ScanError, match="the detector stands at 37"):
        read(tmp_path, moved, "x.raw")


def brml(fields=("TwoTheta", "Theta"), width=1):
    points = "".join(f"<Datum>96,1,{x},{x / 2},{y:.0f}</Datum>" for x, y in zip(ANGLES, COUNTS))
    varying = "".join(f'<FieldDefinitions FieldName="{name}"/>' for name in fields)
    return zipped(
        experimentCollection_xml="<x/>",
        Experiment0__RawData0_xml='<RawData xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        '<DataRoutes><DataRoute RouteFlag="Measured"><ScanInformation VisibleName="Coupled TwoTheta/Theta">'
        f"<TimePerStep>0.5</TimePerStep></ScanInformation>{points}<DataViews>"
        '<RawDataView xsi:type="FixedRawDataView" Start="0" Length="1" LogicName="MeasuredTime"/>'
        f'<RawDataView xsi:type="VaryingRawDataView" Start="2" Length="2"><Varying>{varying}</Varying></RawDataView>'
        f'<RawDataView xsi:type="RecordedRawDataView" Start="4" Length="{width}"><Recording/></RawDataView>'
        "</DataViews></DataRoute></DataRoutes><FixedInformation><Instrument><TubeMaterial>Cu</TubeMaterial>"
        '<WaveLengthAlpha1 Value="1.5406"/><WaveLengthAlpha2 Value="1.54439"/><WaveLengthRatio Value="0.5"/>'
        "</Instrument></FixedInformation></RawData>",
    )


def test_bruker_brml(tmp_path):
    """No real file was at hand: one is built from descriptions of the layout."""
    scan = read(tmp_path, brml(), "scan.brml")
    assert np.array_equal(scan.two_theta, ANGLES) and np.array_equal(scan.intensity, COUNTS)
    assert (scan.anode, scan.ka1, scan.time_per_step, scan.warnings) == ("Cu", 1.5406, 0.5, ())
    with pytest.raises(ScanError, match="area detector"):
        read(tmp_path, brml(width=400), "scan.brml")
    with pytest.raises(ScanError):
        read(tmp_path, brml(fields=("Chi", "Phi")), "scan.brml")


def test_counting_times_and_attenuators(tmp_path):
    times = " ".join(["1"] * 150 + ["4"] * 151)
    scan = read(tmp_path, xrdml(extra=f"<countingTimes>{times}</countingTimes>"))
    assert np.array_equal(scan.intensity, COUNTS) and np.array_equal(scan.time_per_step, np.repeat([1, 4], [150, 151]))
    assert scan.wavelength == pytest.approx(1.790276, abs=1e-6)
    scan = read(tmp_path, xrdml(extra=f"<beamAttenuationFactors>{times}</beamAttenuationFactors>"))
    assert np.array_equal(scan.intensity, COUNTS * np.repeat([1, 4], [150, 151])) and "attenuator" in scan.warnings[0]
    ras = (
        '*RAS_DATA_START\n*RAS_HEADER_START\n*HW_XG_TARGET_NAME "Mo"\n*MEAS_SCAN_AXIS_X "TwoThetaTheta"\n'
        f'*MEAS_SCAN_UNIT_Y "cps"\n*RAS_HEADER_END\n*RAS_INT_START\n{rows(tail=" 1.0")}*RAS_INT_END\n*RAS_DATA_END\n'
    )
    scan = read(tmp_path, ras)
    assert np.array_equal(scan.intensity, COUNTS) and (scan.anode, scan.unit) == ("Mo", "counts per second")
    scan = read(tmp_path, ras.replace("\n23.00 940 1.0", "\n23.00 940 10.0"))
    assert scan.intensity.max() == 9400 and "attenuator" in scan.warnings[0]
