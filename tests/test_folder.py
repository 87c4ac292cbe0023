"""A laboratory's day: a folder of scans and a list of formulas -> answers, a report, a series."""

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from xxlib import report
from xxlib.answering.answer import table_of
from xxlib.diffraction.axes import along, two_theta_of
from xxlib.diffraction.patterns import TWO_THETA
from xxlib.diffraction.wavelengths import CU_KA
from xxlib.predict import Predictor, main
from xxlib.scans.folder import samples_of, series_of
from xxlib.scans.reading import read_scan
from xxlib.scans.samples import read_sample

SPACINGS = np.array([2.82, 1.994, 1.628, 1.41, 1.261, 1.151])  # angstrom, of rock salt


def counts(stretch=1.0):
    """Counts of a scan on the grid of a crystal whose cell is stretched."""
    out = 20 + np.random.default_rng(0).normal(0, 0.5, len(TWO_THETA))
    for angle in two_theta_of("d", SPACINGS * stretch, CU_KA):
        out += 800 * np.exp(-0.5 * ((TWO_THETA - angle) / 0.08) ** 2)
    return out


def write_scan(path, stretch=1.0):
    rows = "".join(f"{x:.2f} {y:.2f}\n" for x, y in zip(TWO_THETA, counts(stretch)))
    path.write_text(f"# wavelength = {CU_KA} A\n# 2theta intensity\n{rows}")


@pytest.fixture(scope="module")
def model(checkpoint):
    return Predictor.load(checkpoint)


@pytest.fixture
def folder(tmp_path):
    """Four scans of a series in temperature, of which one is a photograph."""
    place = tmp_path / "scans"
    place.mkdir()
    for kelvin in (300, 400, 1000):
        write_scan(place / f"NaCl_{kelvin}K.xy", 1 + 4e-5 * (kelvin - 300))
    (place / "NaCl_500K.xy").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    (place / ".hidden").write_text("not a scan")
    return place


def a_list(folder, text, name="list.csv", encoding="utf-8"):
    path = folder.parent / name
    path.write_text(text, encoding=encoding)
    return path


def run(capsys, *arguments):
    """(what a command says, how it ends)."""
    try:
        main([str(word) for word in arguments])
        status = 0
    except SystemExit as ended:
        status = ended.code
    return capsys.readouterr(), status


# ---------------------------------------------------------------- folder and list -> samples


def test_files_of_a_folder_stand_in_the_order_of_their_numbers(folder):
    table = samples_of(folder)
    assert [path.name for path in table["pattern"]] == [f"NaCl_{k}K.xy" for k in (300, 400, 500, 1000)]
    assert table["formula"].isna().all()
    label, values = series_of(table)
    assert label == "temperature (K)" and values.tolist() == [300, 400, 500, 1000]


LISTS = {
    "commas": "file,formula\nNaCl_400K,NaCl\nNaCl_300K.xy,KCl\n",
    "semicolons and a byte order mark": "\ufeffFormula;File name\nNaCl;NaCl_400K\nKCl;NaCl_300K.xy\n",
    "tabs, blanks, more columns": "composition\tfile\tremark\n\nNaCl\t NaCl_400K \tx, y\nKCl\tNaCl_300K.xy\t\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_names_files_with_or_without_their_suffix(folder, name):
    table = samples_of(folder, a_list(folder, LISTS[name]))
    assert [path.name for path in table["pattern"]] == [f"NaCl_{k}K.xy" for k in (400, 300, 500, 1000)]
    assert table["formula"].fillna("").tolist() == ["NaCl", "KCl", "", ""], "what is not in the list comes last"


def test_what_a_list_may_say_besides(folder):
    text = (
        "file,formula,anode,scan,time_h\nNaCl_400K,NaCl,Mo,1,0.5\nNaCl_300K,NaCl,0.7107,,1\n,KCl,,,2\ngone.xy,KCl,,,3\n"
    )
    for kelvin in (500, 1000):
        (folder / f"NaCl_{kelvin}K.xy").unlink()
    table = samples_of(folder, a_list(folder, text))
    assert table["anode"].tolist() == ["Mo", 0.7107, None, None] and table["scan"].tolist()[:2] == [1, None]
    assert table["pattern"][2] is None and table["pattern"][3].name == "gone.xy", "a row in its place"
    label, values = series_of(table)
    assert label == "time (h)" and values.tolist() == [0.5, 1, 2, 3]


BAD_LISTS = {
    "no formulas": (
        "file,remark\nx,y\n",
        r"list.csv needs columns called `file` and `formula`; its first line has file",
    ),
    "empty": ("", "its first line has nothing"),
    "a head alone": ("file,formula\n", "list.csv names no sample"),
    "a cell too many": ("file,formula\nNaCl_300K,NaCl,x\n", "line 2: 3 cells, but 2 columns"),
    "two columns of one kind": ("file,path,formula\na,b,c\n", "two columns say the same"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_lists_that_cannot_be_understood(folder, name):
    text, why = BAD_LISTS[name]
    with pytest.raises(ValueError, match=why):
        samples_of([], a_list(folder, text))


def test_a_name_of_two_files(folder):
    write_scan(folder / "NaCl_300K.dat")
    path = a_list(folder, "file,formula\nNaCl_300K,NaCl\n")
    with pytest.raises(ValueError, match=r"line 2: 'NaCl_300K' may be NaCl_300K.dat and NaCl_300K.xy: write the whole"):
        samples_of(folder, path)


def test_a_list_alone_names_files_beside_it(folder):
    path = folder / "list.csv"
    path.write_text("file,formula\nNaCl_300K,NaCl\n,KCl\n")
    table = samples_of([], path)
    assert [one and one.name for one in table["pattern"]] == ["NaCl_300K.xy", None], "and nothing of the others"


def test_answers_of_an_earlier_time_are_no_scans(folder):
    (folder / "answers.csv").write_text("formula,pattern\n")
    assert len(samples_of(folder)) == 5 and len(samples_of(folder, without=[folder / "answers.csv"])) == 4
    for path in folder.iterdir():
        path.unlink()
    (folder / "inside").mkdir()
    with pytest.raises(ValueError, match=r"holds no file: give one of its folders \(inside\)"):
        samples_of(folder)


def test_what_is_no_series(folder, tmp_path):
    samples = samples_of(folder)
    for names in (
        ["a1.xy", "a1b2.xy", "a3.xy"],
        ["a.xy", "b.xy", "c.xy"],
        ["a1_2.xy", "a2_3.xy", "a3_4.xy"],
        ["a1.xy", "a2.xy"],
    ):
        assert series_of(samples_of([tmp_path / name for name in names])) is None
    with pytest.raises(ValueError, match="no column 'time'"):
        series_of(samples, "time")
    run = samples_of([tmp_path / f"run{k}.xy" for k in range(3)])
    label, _ = series_of(run)
    assert label == "number in the file's name"
    assert series_of(run.assign(formula=["NaCl", "KCl", "NaCl"])) is None


# ---------------------------------------------------------------- the command


def test_a_folder_becomes_a_table_and_a_report(folder, checkpoint, model, capsys):
    """A bad scan is a row in its place; the numbers are those of a call."""
    out = folder.parent
    path = a_list(
        folder, "file,formula,note\n" + "".join(f"{scan.stem},NaCl,n\n" for scan in sorted(folder.glob("*.xy")))
    )
    given = [folder, "--formulas", path, "--model", checkpoint, "--out", out / "answers.csv", out / "answers.html"]
    said, status = run(capsys, *given, "--series", out / "series.pdf", "--xy", out / "xy")
    assert status == 0 and not said.out and "4 samples, 1 refused" in said.err
    table = pd.read_csv(out / "answers.csv")
    names = sorted(scan.name for scan in folder.glob("*.xy"))
    assert table["pattern"].tolist() == names and table["list_note"].tolist() == ["n"] * 4
    refused = table["refused"].fillna("")
    assert refused.astype(bool).tolist() == [name == "NaCl_500K.xy" for name in names]
    assert "JPEG" in refused[names.index("NaCl_500K.xy")]
    expected = model("NaCl", [folder / name for name in names])
    assert np.allclose(table["e_form"], expected["e_form"], equal_nan=True)
    assert "e_form eV/atom" in table["units"][0] and all(re.fullmatch(r"[a-z0-9_]+", name) for name in table)

    page = (out / "answers.html").read_text()
    assert page.count("<img") == 4, "three scans and the series"
    assert "temperature (K)" in page and "JPEG" in page and "http" not in page, "it stands alone"
    assert (out / "series.pdf").read_bytes().startswith(b"%PDF")
    back = read_scan(out / "xy" / "NaCl_300K.xy")
    conditioned = read_sample(None, folder / "NaCl_300K.xy").conditioned
    assert not back.warnings and back.wavelength == pytest.approx(CU_KA)
    inside = (back.two_theta[0] - 0.01 <= TWO_THETA) & (back.two_theta[-1] + 0.01 >= TWO_THETA)
    assert np.abs(back.intensity - conditioned.pattern[inside]).max() < 1e-4


def test_json_is_a_line_a_scan_and_nothing_else(folder, checkpoint, capsys):
    said, status = run(capsys, folder, "--formula", "NaCl", "--model", checkpoint, "--json")
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert status == 0 and [answer["pattern"] for answer in answers] == [f"NaCl_{k}K.xy" for k in (300, 400, 500, 1000)]
    assert [("refused" in answer) for answer in answers] == [False, False, True, False]
    assert all(answer["units"] == {"e_form": "eV/atom"} for answer in answers if "refused" not in answer)


def test_several_files_are_a_line_each(folder, checkpoint, capsys):
    said, status = run(capsys, *sorted(folder.glob("*[34]00K.xy")), "--formula", "NaCl", "--model", checkpoint)
    lines = said.out.splitlines()
    assert status == 0 and len(lines) == 2 and lines[0].startswith("NaCl and NaCl_300K.xy: formation energy")


REFUSED = {
    "no such kind of table": (["--out", "answers.xlsx"], "write it as .csv or .html"),
    "no such folder": (["--out", "nowhere/answers.csv"], "there is no folder"),
    "both": (["--formula", "NaCl", "--formulas", "list.csv"], "give one of them"),
    "no list": (["--formulas", "nowhere.csv"], "nowhere.csv"),
    "no column": (["--along", "time"], "the list has no column 'time'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_command_cannot_do_it_says_before_it_begins(folder, checkpoint, capsys, name, monkeypatch):
    options, why = REFUSED[name]
    monkeypatch.chdir(folder.parent)
    a_list(folder, "file,formula\n")
    said, status = run(capsys, folder, "--model", checkpoint, *options)
    assert status == 1 and why in said.err and said.err.count("\n") == 1 and not said.out


def test_where_all_is_refused_the_command_fails(folder, checkpoint, capsys):
    for path in folder.glob("NaCl_[134]*"):
        path.unlink()
    write = folder.parent / "answers.csv"
    _said, status = run(capsys, folder, "--model", checkpoint, "--out", write)
    assert status == 1 and len(list(csv.DictReader(io.StringIO(write.read_text())))) == 1


def test_one_process_has_no_bar_in_a_file(folder, checkpoint):
    """The bar is for a terminal: what is written to a file is what was asked for."""
    done = subprocess.run(
        [sys.executable, "-m", "xxlib", "predict", folder, "--formula", "NaCl", "--model", checkpoint, "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "predict: 4 samples, 1 refused (each says why)\n"


# ---------------------------------------------------------------- in Python


def test_a_table_says_its_units(model):
    table = model(["NaCl", "Xx"], None)
    assert table.attrs == {"level": 0.9, "units": {name: "eV/atom" for name in ("e_form", "e_form_low", "e_form_high")}}
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in table) and list(table)[-2:] == ["warnings", "refused"]
    assert list(model(["Xx", "NaCl"], None))[-2:] == ["warnings", "refused"], "also where the first is refused"
    assert list(table_of([model.answer_or_refuse("Xx")]))[-1] == "refused"


def test_a_model_says_what_it_is(model):
    assert set(model.targets) == {"e_form", "crystal_system"} and model.targets["e_form"].unit == "eV/atom"
    assert "e_form (eV/atom), crystal_system; from composition + xrd" in repr(model)


def test_samples_as_a_table_and_scans_as_tables(model, folder):
    scan = folder / "NaCl_300K.xy"
    expected = model("NaCl", scan)["e_form"][0]
    samples = pd.DataFrame({"formula": ["NaCl", None], "pattern": [str(scan), str(scan)], "else": 1})
    table = model(samples)
    assert table["answered_from"].tolist() == ["composition + xrd", "xrd"] and table["e_form"][0] == expected
    with pytest.raises(ValueError, match="columns formula, pattern, anode, scan; this has else"):
        model(samples[["else"]])
    with pytest.raises(ValueError, match="make it a column"):
        model(samples, scan)
    assert model(np.array(["NaCl", "KCl"]), np.array([str(scan)] * 2))["e_form"][0] == expected
    assert model(np.str_("NaCl"), np.str_(scan))["e_form"][0] == expected
    assert model(np.array("NaCl"), scan)["e_form"][0] == expected
    assert model(pd.Series(["NaCl"], dtype="string"), scan)["e_form"][0] == expected
    assert model(np.array(["NaCl"], dtype=np.dtypes.StringDType()), scan)["e_form"][0] == expected
    for axis, name in (("two_theta", "two_theta"), ("q", "q"), ("q", "q (1/Å)"), ("d", "d")):
        frame = pd.DataFrame({name: along(axis, TWO_THETA, CU_KA), "intensity": counts()})
        assert model("NaCl", frame, anode="Cu")["e_form"][0] == pytest.approx(expected, abs=2e-3), name


def test_a_report_shows_the_known_crystal(model, folder):
    """Its name and cell in words, its lines beneath the scan, which are where the scan has its own."""
    answer = model.answer_or_refuse("NaCl", folder / "NaCl_300K.xy")
    assert answer.known_crystal["id"] == "mp-22862" and model.answer_or_refuse("NaCl").known_crystal is None
    unexplained = dataclasses.replace(answer, explanation=dataclasses.replace(answer.explanation, none=0.6))
    assert unexplained.known_crystal is None
    shown = " ".join(report.page(model, [answer]).split())
    assert "NaCl (mp-22862), space group 225" in shown and "none of these" in shown
    figure = report.sample_figure(answer, "d")
    (ticks,) = (one for one in figure.axes[0].collections if one.get_label() == "NaCl, mp-22862")
    places = sorted((segment[0][0] for segment in ticks.get_segments()), reverse=True)
    assert places[:3] == pytest.approx([3.26, 2.82, 1.99], abs=0.02)


def test_a_series_shows_what_was_answered(model, folder):
    samples = samples_of(folder)
    answers = [model.answer_or_refuse("NaCl", path) for path in samples["pattern"]]
    figure = report.series_figure(answers, series_of(samples), "d")
    lines, energy, classes = (figure.axes[k] for k in (0, 1, 2))
    assert lines.get_ylabel() == "temperature (K)" and lines.get_xlabel() == "lattice spacing d (Å)"
    x, y = energy.lines[0].get_data()
    assert y.tolist() == [300, 400, 500, 1000] and np.isfinite(x).tolist() == [True, True, False, True]
    assert x[0] == pytest.approx(answers[0].values["e_form"][0])
    assert "probability" in classes.get_xlabel()
