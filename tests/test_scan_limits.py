"""Scans whose header contradicts their data, scans made to hurt, and mutated ones."""

import io
import re
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from test_scans import COUNTS, read, rows, xrdml, zipped

from xxlib.scans.conditioning import condition
from xxlib.scans.reading import read_scan
from xxlib.scans.scan import ScanError

TABLE = rows()

# ---------------------------------------------------------------- the header against the data


def change(old, new, count=1):
    """A change of a file: text or bytes `old` becomes `new`; fails where it is not there."""

    def changed(data):
        a, b = (x if isinstance(x, bytes) else x.encode() for x in (old, new))
        assert a in data, old
        return data.replace(a, b, count)

    return changed


def number_at(place, kind, value):
    """A change of a binary file: another number at a byte."""

    def changed(data):
        size = np.dtype(kind).itemsize
        return data[:place] + np.array([value], kind).tobytes() + data[place + size :]

    return changed


def in_member(name, edit):
    """A change of one member of a zip archive."""

    def changed(data):
        out, archive = io.BytesIO(), zipfile.ZipFile(io.BytesIO(data))
        with zipfile.ZipFile(out, "w") as copy:
            for member in archive.namelist():
                content = archive.read(member)
                copy.writestr(member, edit(content) if member.endswith(name) else content)
        return out.getvalue()

    return changed


def without_lines(first, n):
    def changed(data):
        lines = data.splitlines(keepends=True)
        return b"".join(lines[:first] + lines[first + n :])

    return changed


UDF, DAT, RD, CIF = "zeolite_philips.udf", "rigaku.dat", "corundum_philips.rd", "alumina_pd.cif"
XRA, FXYE, RASX = "fluorapatite_gsas.xra", "synchrotron_11bm.fxye", "silicon_rigaku.rasx"
CONDITIONS = "MesurementConditions0.xml"
CONTRADICTIONS = [
    (UDF, change("  2.0000,", "  4.0000,")),
    (UDF, change("69.9600", "60.0000")),
    (UDF, change("69.9600", "80.0000")),
    (UDF, change("0.040", "0.020")),
    (UDF, change("0.040", "0.080")),
    (UDF, change("454,     384,", "")),
    (UDF, change("     467,", "     467, 467, 467, 467,")),
    (UDF, without_lines(60, 5)),
    (DAT, change("10.0000 ", "20.0000 ")),
    (DAT, change("103.1200", "90.0000")),
    (DAT, change("0.0200", "0.0400")),
    (DAT, change("0.0200", "0.0150")),
    (DAT, change("4657", "4000")),
    (DAT, change("4657", "5000")),
    (DAT, without_lines(100, 3)),
    (RD, number_at(214, "<f8", 0.04)),
    (RD, number_at(214, "<f8", 0.01)),
    (RD, number_at(222, "<f8", 10)),
    (RD, number_at(230, "<f8", 140)),
    (RD, number_at(230, "<f8", 155)),
    (RD, lambda data: data[:-40]),
    (RD, lambda data: data + data[-40:]),
    (CIF, change("range_min              3.0", "range_min              6.0")),
    (CIF, change("167.95", "160.0")),
    (CIF, change("range_inc              0.05", "range_inc              0.10")),
    (CIF, without_lines(1000, 20)),
    (CIF, change("meas_number_of_points              3300", "meas_number_of_points              3200")),
    (XRA, change(" 5753 ", " 5000 ")),
    (XRA, change(" 5753 ", " 5800 ")),
    (XRA, change(" 576 ", " 500 ")),
    (XRA, without_lines(50, 3)),
    (FXYE, change("BANK 1 49493", "BANK 1 49000")),
    (FXYE, change("CONS 50.0", "CONS 80.0")),
    (FXYE, change("0.099987", "0.199987")),
    (FXYE, without_lines(100, 9)),
    (RASX, in_member(CONDITIONS, change("<Start>8.5", "<Start>9.5"))),
    (RASX, in_member(CONDITIONS, change("<Stop>30", "<Stop>40"))),
    (RASX, in_member(CONDITIONS, change("<Step>0.01", "<Step>0.02"))),
    (RASX, in_member(CONDITIONS, change("2151", "2000"))),
    (RASX, in_member("Profile0.txt", without_lines(100, 3))),
    ("panalytical.xrdml", change("100.09488522", "90.09488522")),
    ("panalytical.xrdml", change("50.04744261", "40.04744261")),
    ("bruker_v1.raw", number_at(4, "<u4", 438)),
    ("bruker_v1.raw", number_at(4, "<u4", 1000)),
    ("corundum_bruker_v2.raw", number_at(258, "<u2", 2000)),
    ("bruker_v4.raw", number_at(556, "<u4", 2000)),
    ("bruker_v4.raw", number_at(556, "<u4", 5000)),
    ("corundum_nist1976_bruker.uxd", change("_2THETA=20", "_2THETA=30")),
    ("corundum_nist1976_bruker.uxd", change("_START=20", "_STEPCOUNT=12000\n_START=20")),
]


@pytest.mark.parametrize("case", range(len(CONTRADICTIONS)))
def test_a_header_that_contradicts_the_data_is_not_believed_in_silence(shared_data, tmp_path, case):
    name, edit = CONTRADICTIONS[case]
    path = shared_data / "formats" / name
    usual = read_scan(path).warnings
    try:
        scan = read(tmp_path, edit(path.read_bytes()), name)
    except ScanError as refusal:
        assert re.search("promises|contradict|account for|impossible length|further numbers", str(refusal))
    else:
        assert len(scan.warnings) == len(usual) + 1 and "The header states" in scan.warnings[-1]


# ---------------------------------------------------------------- made to hurt

ODD_NUMBERS = {
    "signalling NaN": (
        b"RAW "
        + np.array([301], "<u4").tobytes()
        + np.array([1, 0.02], "<f4").tobytes()
        + bytes(8)
        + np.array([20], "<f4").tobytes()
        + bytes(128)
        + COUNTS[:300].astype("<f4").tobytes()
        + b"\1\0\xa0\x7f"
    ),
    "wavelength nan": xrdml().replace("1.788996", "nan"),
    "wavelength below zero": xrdml().replace("1.788996", "-1.5"),
    "ratio": xrdml().replace("</usedW", "<ratioKAlpha2KAlpha1>-1</ratioKAlpha2KAlpha1></usedW"),
    "underscores": xrdml().replace(" 40 40", " 4_0 40"),
    "1e308": rows(counts=COUNTS * 1e305, count="{:.3e}"),
    "1e-300": rows(counts=COUNTS * 1e-303, count="{:.3e}"),
    "attenuator": xrdml(extra="<beamAttenuationFactors>" + "inf " * 301 + "</beamAttenuationFactors>"),
    "cut structure": "data_x\n_cell_length_a 4\nloop_\n",
    "text field": "data_x\n_pd_proc_wavelength 1\n;\n" + TABLE,
    "lzma": zipped(Data0__Profile0_txt=TABLE).replace(b"\x08\x00", b"\x0e\x00"),
    "bz2": zipped(Data0__Profile0_txt=TABLE).replace(b"\x08\x00", b"\x0c\x00"),
}


@pytest.mark.parametrize("name", ODD_NUMBERS)
def test_whatever_the_bytes_lead_to_is_a_scan_error(tmp_path, name):
    with pytest.raises(ScanError):
        read(tmp_path, ODD_NUMBERS[name])


LINEAR = {  # text of n pieces: each took quadratic time in one reader or another
    "spaces in the header": lambda n: "2" + " " * n + "\n" + TABLE,
    "hashes": lambda n: "#\n" * (n // 40) + TABLE,
    "alpha": lambda n: "kalpha" * (n // 6) + "\n" + TABLE,
    "energies": lambda n: ("energy wavelength lambda " * 30 + "\n") * (n // 4000) + TABLE,
    "spaces in a row": lambda n: "20 1" + " " * n + "1\n" + TABLE,
    "commas": lambda n: "1," * n + "\n" + TABLE,
    "RAS heads": lambda n: "*RAS_DATA_START\n" + "*RAS_HEADER_START\n" * (n // 10),
    "UXD keys": lambda n: "".join(f"_K{i}=1\n_COUNTS\n1 2\n" for i in range(min(n // 50, 2400))),
    "CIF blank lines": lambda n: "data_x\n" + "\n" * n,
    "CIF loops": lambda n: "data_x\n" + "loop_\n" * (n // 6),
    "CIF blocks": lambda n: "data_x\nloop_\n_pd_meas_counts_total\n1\n2\n" * min(n // 40, 2400),
    "CIF quotes": lambda n: "data_x\n" + ("_a " + "'" * 2000 + "\n") * (n // 2000),
    "GSAS banks": lambda n: "t\nBANK 1 9 1 CONST 1 1 0 0 STD\n" * min(n // 40, 2400),
    "XRDML scans": lambda n: (
        "<xrdMeasurements><xrdMeasurement>" + "<scan/>" * (n // 100) + "</xrdMeasurement></xrdMeasurements>"
    ),
}


def seconds(path):
    start = time.process_time()
    with suppress(ScanError):
        read_scan(path)
    return time.process_time() - start


@pytest.mark.parametrize("name", LINEAR)
def test_reading_takes_linear_time(tmp_path, name):
    paths = [tmp_path / str(k) for k in range(2)]
    for path, n in zip(paths, (60_000, 120_000)):
        path.write_text(LINEAR[name](n))
    once, twice = (min(seconds(path) for _ in range(3)) for path in paths)
    assert twice < 3 * once + 0.05 and twice < 2


def big(tmp_path):
    """Files of up to 20 MB that ask for as much memory and time as they can: name -> path."""
    n = 20_000_000

    def filled(text):
        return text * (n // len(text))

    def packed(text, kind, name="Data0/Profile0.txt"):
        with zipfile.ZipFile(file := io.BytesIO(), "w", kind) as archive:
            archive.writestr(name, text)
        return file.getvalue()

    datum, member = "<R><DataRoute>" + "<Datum>1</Datum>" * 3_000_000 + "</DataRoute></R>", "Experiment0/RawData0.xml"
    contents = {
        "rows": filled("11 11\n"), "cells": filled("11 " * 9000 + "\n"), "comments": "20 1\n21 2\n" + filled("#\n"),
        "million": "".join(f"{5 + 0.00008 * i:.5f} {i % 977}\n" for i in range(1_000_000)),
        "uxd": "_START=5\n_STEPSIZE=0.001\n_COUNTS\n" + filled("11 "), "dat": "*BEGIN\n*COUNT=9\n" + filled("11 "),
        "ras": "*RAS_DATA_START\n*RAS_INT_START\n" + filled("1 1\n"), "field": "data_x\n;" + filled("\na"),
        "gsas": "t\nBANK 1 9 1 CONST 1500 2 0 0 STD\n" + filled("      12" * 10 + "\n"),
        "cif": "data_x\nloop_\n_pd_meas_2theta_scan\n_pd_meas_counts_total\n" + filled("11 "),
        "xml": "<xrdMeasurements>" + filled("<a/>") + "</xrdMeasurements>",
        "deep": "<xrdMeasurements>" + filled("<a>"),
        "brml": packed(datum, zipfile.ZIP_DEFLATED, member),
        "rasx": packed("1 1\n" * 12_000_000, zipfile.ZIP_DEFLATED),
        "bz2": packed("1 1\n" * 100_000_000, zipfile.ZIP_BZIP2),
        "lzma": packed("1 1\n" * 100_000_000, zipfile.ZIP_LZMA),
        "raw": b"RAW1.01\0" + bytes(4) + b"\xff" * 4 + bytes(n), "rd": b"V3RD" + bytes(210) + b"\x11" * n,
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        yield name, tmp_path / name


READING = """
import sys, time
from xxlib.scans.reading import read_scan
from xxlib.scans.scan import ScanError
start = time.process_time()
try:
    read_scan(sys.argv[1])
except ScanError:
    pass
print(time.process_time() - start, open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.stress
def test_no_file_of_20_mb_takes_10_seconds_or_1_gb(tmp_path):
    for name, path in big(tmp_path):
        done = subprocess.run([sys.executable, "-c", READING, path], capture_output=True, text=True, check=True)
        cpu_seconds, kilobytes = map(float, done.stdout.split())
        print(f"{name}: {cpu_seconds:.1f} s, {kilobytes / 1000:.0f} MB")
        assert cpu_seconds < 10 and kilobytes < 1_000_000
        path.unlink()


# ---------------------------------------------------------------- mutated files


def mutated(data, others, rng):
    """A file with one or two accidents: bytes changed, lost, doubled, moved, cut off, or numbers made extreme."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 3)):
        kind, at, length = rng.integers(9), int(rng.integers(len(data) + 1)), int(rng.integers(1, 400))
        if kind == 0:
            for place in rng.integers(len(data), size=rng.integers(1, 20)) if data else ():
                data[place] = rng.integers(256)
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length]
        elif kind == 3:
            data[at:at] = others[rng.integers(len(others))][at : at + length]
        elif kind == 4:
            del data[max(at, 100) :]
        elif kind == 5:
            data[at : at + length] = bytes(rng.integers(256, size=length, dtype=np.uint8))
        else:
            places = [m.span() for m in re.finditer(rb"\d+(?:\.\d+)?", data)]
            odd = (
                b"0",
                b"-1",
                b"nan",
                b"inf",
                b"1e308",
                b"1e-308",
                b"99999999999",
                b"x",
                b"",
                b"1_0",
                b"4294967295",
                b"1,5",
            )
            for _ in range(rng.integers(1, 4)):
                if places:
                    first, last = places[rng.integers(min(len(places), 60) if rng.random() < 0.7 else len(places))]
                    data[first:last] = odd[rng.integers(len(odd))].ljust(last - first)
    return bytes(data)


def peak_kilobytes():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(4))
def test_mutated_scans_are_read_or_refused(shared_data, tmp_path, seed):
    """500 a seed; no exception but ScanError, none over 10 s, and all of them add less than 1 GB to this process."""
    cases = shared_data.parent / "cases"
    paths = [*(shared_data / "formats").iterdir(), *(p for p in cases.glob("*/*") if p.suffix not in (".md", ".txt"))]
    paths = sorted(p for p in paths if p.is_file() and p.stat().st_size < 300_000 and p.parent.name != "attacks")
    contents = [path.read_bytes() for path in paths]
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
    before = peak_kilobytes()
    rng, slowest, n_read = np.random.default_rng(seed), 0, 0
    for k in range(500):
        content = contents[k % len(contents)]
        if content.startswith(b"PK") and rng.random() < 0.7:
            names = zipfile.ZipFile(io.BytesIO(content)).namelist()
            content = in_member(names[rng.integers(len(names))], lambda data: mutated(data, contents, rng))(content)
        else:
            content = mutated(content, contents, rng)
        path = tmp_path / "scan"
        path.write_bytes(content)
        start = time.process_time()
        try:
            condition(read_scan(path))
            n_read += 1
        except ScanError:
            pass
        slowest = max(slowest, time.process_time() - start)
    kilobytes = peak_kilobytes() - before
    print(f"seed {seed}: {n_read} of 500 read, slowest {slowest:.2f} s, {kilobytes / 1000:.0f} MB")
    assert slowest < 10 and kilobytes < 1_000_000
    assert 25 < n_read < 450
