"""The shape of the house: who may import whom, and what a training node does without."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from xxlib import PROJECT

# Imports go one way; a room may use itself and what stands before it.
ORDER = (
    "models",
    "crystals",
    "diffraction",
    "scans",
    "datasets",
    "candidates",
    "training",
    "launching",
    "answering",
    "plots",
)
MAY_IMPORT = {room: set(ORDER[: k + 1]) for k, room in enumerate(ORDER)}
MAY_IMPORT["datasets"] -= {"scans"}
MAY_IMPORT["training"] -= {"scans", "candidates"}
MAY_IMPORT["answering"] -= {"launching"}
MODULES = sorted((PROJECT / "xxlib").rglob("*.py"))
MAPS = {"xxlib/README.md": "The map", "notebooks/README.md": "The study"}  # page -> the section with its drawing
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", PROJECT / "figures" / "mp36k" / "README.md"]
PAGES += [PROJECT / "xxlib" / "README.md", PROJECT / "notebooks" / "README.md"]
PAGES += sorted((PROJECT / "data").rglob("README.md"))
PAGES = [path for path in PAGES if "runs" not in path.relative_to(PROJECT).parts]  # made here


def imports(path, top_level_only=False):
    """Names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path):
    return str(path.relative_to(PROJECT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path):
    parts = path.relative_to(PROJECT / "xxlib").parts
    room = parts[0] if len(parts) > 1 else None
    for name in imports(path):
        if name.startswith("xxlib.") and room:
            target = name.split(".")[1]
            assert target in MAY_IMPORT[room] or target in ("PROJECT", "PACKAGE", "__version__"), (
                f"{name_of(path)} imports {name}"
            )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_rooms_know_only_their_own_tools(path):
    parts = path.relative_to(PROJECT / "xxlib").parts
    roots = {name.split(".")[0] for name in imports(path)}
    top_level = {name.split(".")[0] for name in imports(path, top_level_only=True)}
    if parts[0] in ("crystals", "diffraction", "scans", "plots"):
        assert "torch" not in roots
    if parts[0] == "models":
        assert not roots & {"numpy", "pandas", "pyarrow", "pymatgen"}
    assert not top_level & {"pymatgen", "spglib", "ipywidgets"}, "import it inside the function that needs it"
    if parts[-1] == "losses.py":
        assert not any(name.startswith("xxlib") for name in imports(path))


def test_a_training_node_needs_no_pymatgen():
    blocked = "import sys; sys.modules['pymatgen'] = sys.modules['spglib'] = None; import xxlib.train, xxlib.launch"
    subprocess.run([sys.executable, "-c", blocked], check=True)


def test_nothing_happens_at_import():
    """No thread setting, seed or folder comes from importing."""
    code = (
        "import torch; torch.manual_seed(1); before = torch.get_rng_state(), torch.get_num_threads()\n"
        "import xxlib.train, xxlib.launch, xxlib.prepare\n"
        "assert torch.equal(before[0], torch.get_rng_state()) and before[1] == torch.get_num_threads()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_drawers():
    drawers = {"utils", "common", "base", "helpers", "misc"}
    assert not [path for path in MODULES if path.stem in drawers]


def house():
    """Every path of both maps, two spaces deeper a folder: "xxlib/crystals/cif.py", "notebooks/study/pages.py"."""
    drawings = [(PROJECT / page).read_text().split(f"## {title}")[1].split("```")[1] for page, title in MAPS.items()]
    above, found = [], []
    for line in filter(str.strip, "\n".join(drawings).splitlines()):
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0].rstrip("/")
        above[depth:] = [name]
        found.append("/".join(above))
    return found


def test_the_map_of_the_house_is_the_tree():
    drawn = house()
    assert len(set(drawn)) == len(drawn)
    assert not [path for path in drawn if not (PROJECT / path).exists()], f"on a map and not there, {list(MAPS)}"
    modules = [*MODULES, *sorted((PROJECT / "notebooks" / "study").glob("*.py"))]
    lacking = {name_of(path) for path in modules if path.name != "__init__.py"} - set(drawn)
    assert not lacking, f"on no map ({list(MAPS)}): {sorted(lacking)}"
    top = {path.name for path in PROJECT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert {"notebooks", "xxlib", "data", "figures", "tests"} <= top and {"notebooks", "xxlib"} <= set(drawn)


def test_the_readme_is_short_and_says_what_the_model_takes():
    readme = (PROJECT / "README.md").read_text()
    assert len(readme.splitlines()) < 150
    own = "xxact fusion heads inputs layers encoders/composition encoders/xrd"
    lines = sum(len((PROJECT / "xxlib" / "models" / f"{name}.py").read_text().splitlines()) for name in own.split())
    assert f"{round(lines, -2)} lines of torch" in readme


def test_the_readme_leads_to_every_table_and_figure_of_the_paper():
    """All but Figure 1, which is the method; the next test says that they are there."""
    readme = (PROJECT / "README.md").read_text()
    tables = [f"data/results/table_{n}.csv" for n in range(1, 6)]
    figures = [f"figures/mp36k/figure_{n}.png" for n in range(2, 7)]
    for path in tables + figures:
        assert f"]({path})" in readme, f"README.md has no link to {path}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_the_pages_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, section = link.partition("#")
        if not link.startswith(("http", "#")):
            assert (page.parent / path).exists(), f"{name_of(page)} links to {path}, which is not there"
        if section and not link.startswith("http"):
            titles = re.findall(r"^#+ (.+)$", ((page.parent / path) if path else page).read_text(), re.M)
            anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert section in anchors, f"{name_of(page)} links to a section {section} that is not there"


def test_shared_data_is_named_by_the_tests_and_run_scripts_only():
    tracked = [*MODULES, *Path(PROJECT / "notebooks").glob("*.ipynb"), *Path(PROJECT / "tests").glob("test_*.py")]
    assert not [name_of(path) for path in tracked if "../" + "shared" in path.read_text()]
