"""Hostile crystal files: each is refused with its reason, in a folder of them no other suffers, nothing hangs.

test_cif.py holds the slips a CIF file can have; here are damage, disguise and contradiction, whole folders, and files
that were valid until something happened to them.
"""

import gzip
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import warnings
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cif import BAD as SLIPS
from test_cif import NACL, P1, P_BAR_1, cif, fm_3m, without

from xxlib.crystals.cif import crystal_from_cif
from xxlib.crystals.cif_text import text_of
from xxlib.crystals.compositions import composition_of_crystal
from xxlib.crystals.crystal import RejectedCrystal, check
from xxlib.datasets.store import Dataset
from xxlib.diffraction.scattering import sticks

CPU_LIMIT = 2.0  # seconds a file, on average over the named ones
HANGS = 15.0  # CPU seconds of one file
CUBE = (5.64, 5.64, 5.64, 90, 90, 90)
WHOLE = cif(head="_chemical_formula_sum 'Na Cl'")


def until(text, end, more=0):
    """The text up to and with `end`, and so many characters more."""
    return WHOLE[: text.index(end) + len(end) + more]


def operation(text):
    return cif(symmetry=P1 + f"'{text}'\n")


def group(name="", number=""):
    lines = [f"_symmetry_space_group_name_H-M '{name}'"] * bool(name) + [f"_space_group_IT_number {number}"] * bool(
        number
    )
    return "\n".join(lines) + "\n"


def species(symbol):
    return cif(f"A1 {symbol} 0 0 0.5 1\n" + NACL)


BAD = {
    "atom of an element lost": (
        cif("Ga1 Ga 0 0 0 1", head="_chemical_formula_sum Ga2\n_cell_formula_units_Z 2"),
        "the formula is Ga2, the atoms give Ga1",
    ),
    # what is no CIF
    "UTF-16": (WHOLE.encode("utf-16"), "NUL bytes"),
    "UTF-16 without a mark": (WHOLE.encode("utf-16-le"), "NUL bytes"),
    "UTF-32": (WHOLE.encode("utf-32"), "NUL bytes"),
    "NUL in a label": (WHOLE.replace("Cl1", "Cl\0"), "NUL bytes"),
    "NUL in a number": (WHOLE.replace("0.5 0.5", "0.5 0\0.5"), "NUL bytes"),
    "end lost in a crash": (WHOLE[:-40] + "\0" * 40, "NUL bytes"),
    "gzip": (gzip.compress(WHOLE.encode(), mtime=0), "not a CIF"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not a CIF"),
    "login page": ("<!DOCTYPE html>\n<html><body>Please log in</body></html>", "not a CIF"),
    "JSON": ('{"lattice": 4.0, "data_": [1, 2]}', "a quote is never closed"),
    "POSCAR": ("NaCl\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n", "not a CIF"),
    "git-lfs pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n", "not a CIF"),
    "XML": ("<?xml version='1.0'?>\n<cif>data_x</cif>", "not a CIF"),
    "mmCIF": ("data_1abc\n_cell.length_a 4\nloop_\n_atom_site.id\n_atom_site.Cartn_x\n1 0.0\n", "no atoms with"),
    "comment": ("# nothing here\n", "not a CIF"),
    "global_ for data_": (WHOLE.replace("data_test", "global_"), "no data_ block"),
    "head lost": (WHOLE[WHOLE.index("_cell_angle_alpha") :], "no data_ block"),
    # cut in each section
    "cut after data_": (until(WHOLE, "data_test"), "no atoms"),
    "cut in a length": (until(WHOLE, "_cell_length_c"), "no atoms"),
    "cut in an angle": (until(WHOLE, "_cell_angle_beta 9"), "no atoms"),
    "cut before the operations": (until(WHOLE, "loop_"), "truncated?"),
    "cut in an operation": (until(WHOLE, "'x, y"), "a quote is never closed"),
    "cut in the columns": (until(WHOLE, "_atom_site_fract"), "truncated?"),
    "cut before the rows": (until(WHOLE, "_atom_site_occupancy\n"), "truncated?"),
    "cut in a row": (until(WHOLE, "Na1 Na 0"), "truncated?"),
    "cut after a row": (until(WHOLE, "Na1 Na 0 0 0 1\n"), "the formula is Na Cl, the atoms give Na1"),
    "cut in a label": (until(WHOLE, "\nCl"), "truncated?"),
    # the cell
    "length ?": (cif(cell=("?", 4, 4, 90, 90, 90)), "_cell_length_a is '?'"),
    "length .": (cif(cell=(4, ".", 4, 90, 90, 90)), "_cell_length_b is '.'"),
    "length in words": (cif(cell=("four", 4, 4, 90, 90, 90)), "_cell_length_a is 'four'"),
    "length with unit": (cif(cell=("4A", 4, 4, 90, 90, 90)), "_cell_length_a is '4A'"),
    "length and unit": (cif(cell=("4 A", 4, 4, 90, 90, 90)), "stray text 'A'"),
    "length 1e400": (cif(cell=("1e400", 4, 4, 90, 90, 90)), "not a number"),
    "length 1e30": (cif(cell=("1e30", 4, 4, 90, 90, 90)), "outside 1.5-200"),
    "length 1e-30": (cif(cell=("1e-30", 4, 4, 90, 90, 90)), "outside 1.5-200"),
    "length 0x4": (cif(cell=("0x4", 4, 4, 90, 90, 90)), "_cell_length_a is '0x4'"),
    "decimal comma": (cif(cell=("4,05", 4, 4, 90, 90, 90)), "_cell_length_a is '4,05'"),
    "two decimal points": (cif(cell=("4.0.5", 4, 4, 90, 90, 90)), "_cell_length_a is '4.0.5'"),
    "uncertainty not closed": (cif(cell=("4.05(", 4, 4, 90, 90, 90)), "_cell_length_a is '4.05('"),
    "nanometres": (cif(cell=(0.4, 0.4, 0.4, 90, 90, 90)), "outside 1.5-200"),
    "picometres": (cif(cell=(400, 400, 400, 90, 90, 90)), "outside 1.5-200"),
    "radians": (cif(cell=(4, 4, 4, 1.5708, 1.5708, 1.5708)), "degree outside 3-177"),
    "negative angle": (cif(cell=(4, 4, 4, -90, 90, 90)), "impossible cell"),
    "angle ?": (cif(cell=(4, 4, 4, 90, "?", 90)), "_cell_angle_beta is '?'"),
    "all lengths 5e4": (cif(cell=(5e4, 5e4, 5e4, 90, 90, 90)), "outside 1.5-200"),
    "nearly flat": (cif(cell=(4, 4, 4, 60, 60, 119.99)), "a flat cell"),
    "needle": (cif(cell=(150, 4, 4, 3.5, 90, 90)), "a flat cell"),
    "length in a loop": (
        without(WHOLE, "_cell_length_a").replace("data_test\n", "data_test\nloop_\n_cell_length_a\n4\n5\n"),
        "_cell_length_a is ['4', '5']",
    ),
    "vacuum": (cif(cell=(4, 4, 150, 90, 90, 90)), "cubic angstrom per atom"),
    # coordinates and occupancies
    "coordinate 1/3": (cif("Na1 Na 1/3 0 0 1"), "_atom_site_fract_x of Na1 is '1/3'"),
    "coordinate 0.5.": (cif("Na1 Na 0.5. 0 0 1"), "not a number"),
    "coordinate --0.5": (cif("Na1 Na --0.5 0 0 1"), "not a number"),
    "coordinate 1e300": (cif("Na1 Na 1e300 0 0 1"), "no fractions of the cell vectors"),
    "Cartesian coordinates": (cif("Na1 Na 0 0 0 1\nCl1 Cl 12.8 12.8 12.8 1"), "no fractions of the cell vectors"),
    "full-width digits": (cif("Na1 Na \uff10.\uff15 0 0 1"), "not a number"),
    "line separator": (cif("Na1 Na 0 0\u2028 0 1"), "not a number"),
    "occupancy nan": (cif("Na1 Na 0 0 0 nan"), "_atom_site_occupancy of Na1 is 'nan'"),
    "occupancy .": (cif("Na1 Na 0 0 0 ."), "_atom_site_occupancy of Na1 is '.'"),
    "occupancy 1/2": (cif("Na1 Na 0 0 0 1/2"), "_atom_site_occupancy of Na1 is '1/2'"),
    "occupancy 50%": (cif("Na1 Na 0 0 0 50%"), "_atom_site_occupancy of Na1 is '50%'"),
    "occupancy -0": (cif("Na1 Na 0 0 0 -0"), "occupancy -0 of Na1"),
    "occupancy 1e9": (cif("Na1 Na 0 0 0 1e9"), "occupancy 1e+09 of Na1"),
    "occupancy 1e-9": (cif("Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 1e-9"), "after the symmetry operations"),
    "disorder that overlaps": (cif("Na1 Na 0 0 0 1\nCl1 Cl .03 0 0 .7"), "overlap: 0.120 angstrom"),
    # species
    "Xx": (species("Xx"), "'Xx' is no element"),
    "vacancy": (species("Vac"), "'Vac' is no element"),
    "Va": (species("Va"), "'Va' is no element"),
    "?": (species("?"), "'?' is no element"),
    ".": (species("."), "'.' is no element"),
    "M": (species("M"), "'M' is no element"),
    "Du": (species("Du"), "'Du' is no element"),
    "ammonium": (species("NH4"), "'NH4' is no element"),
    "methyl": (species("CH3"), "'CH3' is no element"),
    "dihydrogen": (species("H2"), "'H2' is no element"),
    "electron": (species("e-"), "'e-' is no element"),
    "atomic number": (species("11"), "'11' is no element"),
    "Fe/Ni": (species("Fe/Ni"), "'Fe/Ni' is no element"),
    "Fe,Ni": (species("Fe,Ni"), "'Fe,Ni' is no element"),
    "Na0.5K0.5": (species("Na0.5K0.5"), "'Na0.5K0.5' is no element"),
    "two elements in quotes": (species("'Na K'"), "'Na K' is no element"),
    "Fe3+O": (species("Fe3+O"), "'Fe3+O' is no element"),
    "Fe?": (species("Fe?"), "'Fe?' is no element"),
    "13C": (species("13C"), "'13C' is no element"),
    "deuteron": (species("D+"), "isotope D"),
    "two elements in a label": (without(cif("Fe/Ni1 0 0 0 1"), "type_symbol"), "'Fe/Ni1' is no element"),
    "fermium": (species("Fm"), "Z = 100"),
    "oganesson": (species("Og"), "Z = 118"),
    # loops, quotes, text fields, tags
    "column short": (cif("Na1 Na 0 0 0\nCl1 Cl .5 .5 .5 1"), "truncated?"),
    "column over": (cif("Na1 Na 0 0 0 1 1\nCl1 Cl .5 .5 .5 1"), "truncated?"),
    "column short in six rows": (
        cif("\n".join(f"Na{i} Na 0.{i} 0.{i} 0.{i}" for i in range(1, 7))),
        "_atom_site_occupancy of Na1 is 'Na2'",
    ),
    "value after the end": (WHOLE + "0.5\n", "truncated?"),
    "open quote": (cif(head="_publ_title 'never closed"), "a quote is never closed"),
    "open quote in a row": (cif("Na1 'Na 0 0 0 1\nCl1 Cl .5 .5 .5 1"), "a quote is never closed: Na1 'Na"),
    "open double quote": (cif('Na1 Na 0 0 0 "1\nCl1 Cl .5 .5 .5 1'), "a quote is never closed"),
    "text field among the rows": (cif("Na1 Na 0 0 0 1\n;\nCl1 Cl .5 .5 .5 1\n;\n"), "truncated?"),
    "loop_ in a row": (cif("Na1 Na 0 0 loop_ 1\nCl1 Cl .5 .5 .5 1"), "truncated?"),
    "tag in a row": (cif("Na1 Na 0 0 _cell 1\nCl1 Cl .5 .5 .5 1"), "truncated?"),
    "data_ between the rows": (cif("Na1 Na 0 0 0 1\ndata_x\nCl1 Cl .5 .5 .5 1"), "stray text 'Cl1'"),
    "coordinate column twice": (WHOLE.replace("fract_y", "fract_x"), "_atom_site_fract_x occurs 2 times"),
    "occupancy column twice": (
        cif("Na1 Na 0 0 0 1 0.5\nCl1 Cl .5 .5 .5 1 1").replace(
            "_atom_site_occ", "_atom_site_occupancy\n_atom_site_occ"
        ),
        "incomplete list of atoms",
    ),
    "type column twice": (
        cif("Na1 Na K 0 0 0 1\nCl1 Cl Br .5 .5 .5 1").replace("_atom_site_type_symbol", "_atom_site_type_symbol\n" * 2),
        "incomplete list of atoms",
    ),
    "formula twice": (cif(head="_chemical_formula_sum 'Na Cl'\n_chemical_formula_sum 'K Br'"), "formula is K Br"),
    "another list of atoms": (
        WHOLE + "loop_\n_atom_site_label\n" + "".join(f"_atom_site_fract_{x}\n" for x in "xyz") + "K1 .1 .1 .1\n",
        "more than one structure",
    ),
    # symmetry
    "operation of words": (operation("mirror"), "'mirror' is no symmetry operation"),
    "operation in two dimensions": (operation("x,y"), "'x,y' is no symmetry operation"),
    "operation in four": (operation("x,y,z,t"), "'x,y,z,t' is no symmetry operation"),
    "operation that runs": (operation("__import__(chr(111)),y,z"), "is no symmetry operation"),
    "operation 1/0": (operation("x,y,z+1/0"), "cannot read the symmetry"),
    "operation 2x": (operation("2x,y,z"), "form no group"),
    "operation x,x,z": (operation("x,x,z"), "do not fit the cell"),
    "operation of 1/7": (operation("x+1/2,y,z+1/7"), "form no group"),
    "identity missing": (cif(symmetry="loop_\n_symmetry_equiv_pos_as_xyz\n'-x,-y,-z'\n"), "form no group"),
    "193 operations": (cif(cell=CUBE, symmetry=fm_3m() + "\n'x,y,z'"), "193 symmetry operations, more than 192"),
    "10,000 operations": (cif(symmetry=P1 + "'x,y,z'\n" * 9999), "10000 symmetry operations"),
    "name against operations": (cif(cell=CUBE, symmetry=group("F m -3 m") + P1), "space group 225 is stated"),
    "P1 against operations": (cif(symmetry=group("P 1") + P_BAR_1), "operations are those of 2"),
    "number against operations": (cif(cell=CUBE, symmetry=group(number=225) + P1), "space group 225 is stated"),
    "name against number": (cif(cell=CUBE, symmetry=group("F m -3 m", 221)), "space group 221 is stated"),
    "space group 231": (cif(symmetry=group(number=231)), "space group 231 is stated"),
    "cubic in a tetragonal cell": (cif(cell=(4, 4, 5, 90, 90, 90), symmetry=group("F m -3 m")), "not fit the cell"),
    # size
    "5,000 atoms": (
        cif(
            "\n".join(f"Na{i} Na {i % 17 / 17:.4f} {i // 17 % 17 / 17:.4f} {i // 289 / 18:.4f} 1" for i in range(5000))
        ),
        "5000 atoms, more than 1000",
    ),
    "50,000 blocks": ("".join(f"data_{i}\n_a 1\n" for i in range(50_000)), "no atoms"),
    "100,000 loops": ("data_x\n" + "loop_\n_a\n1\n" * 100_000, "no atoms"),
    "half a million text fields": ("data_x\n_a\n" + ";\n;\n" * 500_000, "no atoms"),
    "quotes": ("data_x\n" + ("_a " + "'a" * 1000 + "\n") * 2000, "a quote is never closed"),
    "50 MB": (cif() + "# " + "x" * 50_000_000, "too large: 50.0 MB"),
}
# What stands in the folder under such a name, made by a function of its path.
ODD = {
    "folder": (lambda path: path.mkdir(), "a folder, pipe or device"),
    "pipe": (os.mkfifo, "a folder, pipe or device"),
    "socket": (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "a folder, pipe or device"),
    "device without end": (lambda path: path.symlink_to("/dev/zero"), "a folder, pipe or device"),
    "link to nothing": (lambda path: path.symlink_to("absent"), "No such file"),
    "link to itself": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "unreadable": (lambda path: path.touch(mode=0), "Permission denied" if os.geteuid() else "empty file"),
}
GOOD = {"one": WHOLE, "two": cif(cell=CUBE, symmetry=fm_3m())}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder `prepare` makes of all of them at once."""
    folder = tmp_path_factory.mktemp("cifs", numbered=False)
    for i, (text, _) in enumerate(BAD.values()):
        (folder / f"bad-{i}.cif").write_bytes(text if isinstance(text, bytes) else text.encode())
    for i, (make, _) in enumerate(ODD.values()):
        make(folder / f"odd-{i}.cif")
    for name, text in GOOD.items():
        (folder / f"{name}.cif").write_text(text)
    code = (
        "import sys; from xxlib.prepare import prepare, cif_folder\n"
        "print(*prepare(cif_folder(sys.argv[1]), sys.argv[2], progress=False))"
    )
    limit = int(CPU_LIMIT * (len(BAD) + len(ODD)))
    command = [sys.executable, "-c", code, str(folder), str(folder.parent / "out")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=2 * limit)
    assert run.returncode == 0, run.stderr
    return tuple(map(int, run.stdout.split())), folder.parent / "out"


@pytest.fixture(scope="module")
def reasons(prepared):
    return {row["source"]: row["reason"] for row in pq.read_table(prepared[1] / "rejects.parquet").to_pylist()}


def test_there_are_many_and_none_twice():
    assert len(BAD) + len(ODD) + len(SLIPS) > 190
    texts = [text if isinstance(text, bytes) else text.encode() for text, _ in (*BAD.values(), *SLIPS.values())]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", [*BAD, *ODD])
def test_refused_with_source_and_reason(reasons, name):
    names = {key: f"bad-{i}.cif" for i, key in enumerate(BAD)} | {key: f"odd-{i}.cif" for i, key in enumerate(ODD)}
    reason = reasons[names[name]]
    assert (BAD | ODD)[name][1] in reason
    assert "\n" not in reason and len(reason) < 400


def test_nothing_is_lost_and_no_other_suffers(prepared, reasons):
    (accepted, rejected), out = prepared
    assert accepted == len(GOOD) and rejected == len(BAD) + len(ODD) == len(reasons)
    assert sorted(Dataset(out).column("id")) == sorted(f"{name}.cif" for name in GOOD)


# Valid files to which something happens.


@lru_cache(maxsize=1)
def valid():
    """CIF files as pymatgen writes them: AFLOW prototypes, one mixed and partly empty, one with charges."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
    from pymatgen.core import Lattice, Structure
    from pymatgen.io.cif import CifWriter

    structures = [record["snl"].structure for record in AFLOW_PROTOTYPE_LIBRARY[5:270:44]]
    partial = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.6), [{"Na": 0.75, "K": 0.2}, "Cl"], [[0, 0, 0], [0.5] * 3]
    )
    charged = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.4), ["Ca2+", "F-"], [[0, 0, 0], [0.25] * 3])
    texts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for structure, symprec in zip([*structures, partial, partial, charged], itertools.cycle([None, 0.01])):
            texts.append(str(CifWriter(structure, symprec=symprec)))
    return texts


NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")


def flip(data, i, j):
    data[i % len(data)] ^= 1 << j % 8


def cut(data, i, j):
    del data[i % len(data) :]


def delete_line(data, i, j):
    lines = data.splitlines(keepends=True)
    del lines[i % len(lines)]
    data[:] = b"".join(lines)


def repeat_line(data, i, j):
    lines = data.splitlines(keepends=True)
    lines.insert(j % len(lines), lines[i % len(lines)])
    data[:] = b"".join(lines)


def swap_numbers(data, i, j):
    text = data.decode("latin-1")
    found = list(NUMBER.finditer(text))
    first, second = sorted((found[i % len(found)], found[j % len(found)]), key=lambda match: match.start())
    if first is not second:
        between = text[first.end() : second.start()]
        data[:] = (text[: first.start()] + second[0] + between + first[0] + text[second.end() :]).encode("latin-1")


place = st.integers(0, 100_000)
accidents = st.lists(
    st.tuples(st.sampled_from([flip, flip, cut, delete_line, repeat_line, swap_numbers]), place, place),
    min_size=1,
    max_size=3,
)


class TooSlow(BaseException):
    """Not an Exception, which the reader would take for one of pymatgen's."""


@contextmanager
def cpu_limit(seconds):
    def stop(*_):
        raise TooSlow

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def read_damaged(path, which, accidents):
    """The Crystal of a valid file after some accidents, or None where it was refused; and the text."""
    data = bytearray(valid()[which % len(valid())].encode())
    for accident, i, j in accidents:
        if len(data) > 100:
            accident(data, i, j)
    path.write_bytes(data)
    with cpu_limit(HANGS):
        try:
            crystal = check(crystal_from_cif(path, "damaged"))
            lines = sticks(crystal)
        except RejectedCrystal as error:
            assert str(error) and "\n" not in str(error)
            return None, data
    assert np.isfinite(lines.intensity).all() and np.isclose(lines.intensity.max(), 100)
    return crystal, data


def check_damaged(path, which, accidents):
    """Refused, or a sound crystal of the composition that pymatgen, told to be strict, reads from the same text."""
    from pymatgen.io.cif import CifParser

    crystal, data = read_damaged(path, which, accidents)
    if crystal is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = CifParser.from_str(text_of(bytes(data)))  # a letter of a name may have become a capital
        (structure,) = parser.parse_structures(primitive=False, check_occu=True, on_error="raise")
    amounts = {element.Z: amount for element, amount in structure.composition.element_composition.items()}
    element_ids, fractions = composition_of_crystal(crystal)
    assert set(element_ids.tolist()) == set(amounts)
    expected = np.array([amounts[z] for z in element_ids.tolist()])
    assert np.allclose(fractions, expected / expected.sum(), atol=1e-3)


def survive(tmp_path, n):
    @settings(max_examples=n, deadline=None, derandomize=True, database=None)
    @given(which=place, accidents=accidents)
    def check_one(which, accidents):
        check_damaged(tmp_path / "damaged.cif", which, accidents)

    check_one()


def test_the_valid_files_are_valid(tmp_path):
    for which in range(len(valid())):
        assert read_damaged(tmp_path / "valid.cif", which, [])[0] is not None


def test_hundred_damaged_files(tmp_path):
    survive(tmp_path, 100)


@pytest.mark.stress
def test_many_damaged_files(tmp_path):
    survive(tmp_path, 500)
