"""The shape of the notebooks; running them is the task of `make test`, with nbmake."""

import ast
import json
import re

import nbformat
import pytest
from matplotlib.text import Text
from nbclient import NotebookClient
from PIL import Image
from study import (
    archive,
    few_labels,
    measured,
    modalities,
    noise,
    other_pretrainings,
    pretraining,
    representations,
    scaling,
)
from study.tables import MOST
from test_plots import at_print_size

from xxlib import PROJECT
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.plots.style import COLUMN, PAGE
from xxlib.training.presets import PRESETS

FIGURES = (modalities, pretraining, other_pretrainings, representations, few_labels, scaling)
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request):
    return json.loads(request.param.read_text())


def code(notebook):
    """Sources of the code cells."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_each_has_a_number_of_its_own():
    numbers = [int(path.name[:2]) for path in NOTEBOOKS]
    assert numbers[:3] == [1, 2, 3] and len(set(numbers)) == len(numbers)


def test_nothing_that_ran_is_committed(notebook):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_format_and_kernel(notebook):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


def test_the_same_opening(notebook):
    title, imports, parameters = notebook["cells"][:3]
    assert title["cell_type"] == "markdown" and re.match(r"# \d\d ", "".join(title["source"]))
    for word in ("**Question.**", "**Paper.**", "**Cost.**", "**Expected value.**", *("`smoke`", "`small`")):
        assert word in "".join(title["source"])
    assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse("".join(imports["source"])).body)
    assert parameters["metadata"]["tags"] == ["parameters"]
    values = {}
    exec("".join(parameters["source"]), values)
    defaults = {"preset": "smoke", "n_gpus": 0, "seed": 0}  # what CI executes
    assert {"preset", "n_gpus"} <= set(values)
    assert {name: values[name] for name in defaults if name in values}.items() <= defaults.items()
    assert values["preset"] in PRESETS


def test_imports_stand_in_one_cell(notebook):
    for source in code(notebook)[1:]:
        nodes = list(ast.walk(ast.parse(source)))
        assert not [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def test_no_def_no_class_no_long_cell(notebook):
    for source in code(notebook):
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda | ast.While)
        assert len(source.splitlines()) <= 20, "what is long belongs in xxlib"


def test_only_what_every_user_has(notebook):
    for source in code(notebook):
        assert "../" not in source and "/work/" not in source, "paths start at xxlib.PROJECT"
        assert not re.search(r"^\s*[!%]", source, re.MULTILINE), "a shell command that fails would pass unseen"


def test_colours_come_from_plots(notebook):
    for source in code(notebook):
        assert not re.search(r"#[0-9A-Fa-f]{6}|matplotlib|seaborn", source)


def test_figures_say_what_their_labels_are(notebook):
    """A figure of a dataset that is not named in its cell has the origin of the labels in its title."""
    for source in code(notebook):
        if 'f"{name}/' in source:
            assert re.search(r"\{labels\}|\bcaption\b|=label\b|\bfigures\b", source)


@pytest.mark.parametrize("experiment", FIGURES, ids=lambda experiment: experiment.__name__)
def test_figures_of_the_study_say_what_their_labels_are(experiment):
    for name, figure in experiment.figures().items():
        titles = " ".join(text.get_text() for text in figure.findobj(Text))
        assert any(label in titles for label in archive.LABELS.values()), name


@pytest.mark.parametrize("experiment", (*FIGURES, noise, measured), ids=lambda experiment: experiment.__name__)
def test_figures_of_the_study_are_for_print(experiment):
    """A column or a page wide, letters of 7 points and more, nothing cut, and no name that only the code knows."""
    for name, figure in experiment.figures().items():
        figure.suptitle("")  # which save_figure leaves out
        assert not at_print_size(figure), name
        written = " ".join(text.get_text() for text in figure.findobj(Text))
        assert not re.search(r"xrd|mxm|e_form|bimodal|predictor-|_only", written, re.IGNORECASE), name


def test_committed_figures_are_of_print_too():
    """Each as .png with 300 dots an inch and as .pdf, 3.5 or 7.2 inch wide."""
    pictures = [*(PROJECT / "figures" / "mp36k").glob("*.png"), *(PROJECT / "figures").glob("*.png")]
    assert len(pictures) > 20
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.width in (300 * COLUMN, 300 * PAGE), path.name
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        if path.parent.name == "mp36k":
            assert f"({path.name})" in (path.parent / "README.md").read_text(), "its caption"


def test_experiments_are_not_repeated_in_notebooks():
    """Notebooks of the study take runs, tables and figures from it, and of xxlib no more than what saves a figure."""
    for path in NOTEBOOKS[1:6]:
        (imports, *_) = code(json.loads(path.read_text()))
        nodes = ast.parse(imports).body
        assert {(node.module, *(name.name for name in node.names)) for node in nodes if node.module != "study"} == {
            ("xxlib", "plots")
        }


@pytest.mark.stress
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_an_executed_notebook_shows(path):
    """No box of stderr, no table wider than a screen, nothing from the net; the controls of 07 are saved with it."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": path.parent}}).execute()
    assert faults(notebook) == []


def faults(executed):
    """What a reader of an executed notebook would stumble over."""
    found = []
    for cell in executed.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                found.append(f"stderr: {output.text[:100]}")
            html = output.get("data", {}).get("text/html", "")
            for table in html.partition("<details")[0].split("<table")[1:]:
                heads = re.findall(r"<th[^>]*>([^<]+)</th>", table.partition("</thead>")[0])
                if len([head for head in heads if head not in CRYSTAL_SYSTEMS]) > MOST:
                    found.append(f"{len(heads)} columns: {heads}")
            if re.search(r"(src|href)=.?https?:", html):
                found.append("it loads from the net")
    controls = any("widget-view" in kind for cell in executed.cells for output in cell.get("outputs", ())
                   for kind in output.get("data", {}))  # fmt: skip
    if controls and not executed.metadata.get("widgets"):
        found.append("controls without what they show")
    return found


@pytest.mark.stress
def test_notebook_07_trains_the_checkpoint_that_it_is_not_given():
    """As committed it takes the checkpoint of the repository."""
    (path,) = [path for path in NOTEBOOKS if path.name.startswith("07")]
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    parameters.source += "\ncheckpoint = None"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}}).execute()
    shown = [
        output.get("data", {}).get("text/plain", "") for cell in notebook.cells for output in cell.get("outputs", ())
    ]
    said = "<Predictor released: e_form (eV/atom), crystal_system; from composition + xrd, from composition, from xrd"
    assert any(text.startswith(said) for text in shown)
