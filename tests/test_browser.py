"""The controls of notebook 07 as their users see them: in JupyterLab and as a page, in a browser without a screen."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest

from xxlib import PROJECT

NOTEBOOK = PROJECT / "notebooks" / "07_from_scan_to_answer.ipynb"
SCAN = PROJECT / "data" / "examples" / "NaCl.uxd"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ALONE = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip
SCREEN = {"width": 1366, "height": 768}  # of a small notebook computer
PATIENCE = 240  # seconds: on an idle machine a tenth of it is enough


def _block(first, last):
    """One scan of a .ras: a line at 31.7, another at 45.4 degree on a background."""
    angles = np.arange(first, last, 0.05)
    counts = 20 + sum(500 * np.exp(-0.5 * ((angles - line) / 0.1) ** 2) for line in (31.7, 45.4))
    rows = "".join(f"{x:.2f} {y:.0f} 1.0\n" for x, y in zip(angles, counts + np.arange(len(angles)) % 7))
    axis = '*MEAS_SCAN_AXIS_X "TwoThetaTheta"'
    return f"*RAS_HEADER_START\n{axis}\n*RAS_HEADER_END\n*RAS_INT_START\n{rows}*RAS_INT_END\n"


TWO_SCANS = f"*RAS_DATA_START\n{_block(25, 40)}{_block(40, 60)}*RAS_DATA_END\n".encode()

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium here: apt-get install chromium")


def wait(condition, what):
    """The first true value of a condition."""
    start = time.monotonic()
    while time.monotonic() - start < PATIENCE:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise TimeoutError(what)


@pytest.fixture
def root(tmp_path, checkpoint):
    """A folder with a copy of the notebook that takes its answers from the checkpoint of these tests."""
    notebook = json.loads(NOTEBOOK.read_text())
    (parameters,) = (cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ()))
    parameters["source"].append(f"\ncheckpoint = {str(checkpoint)!r}")
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / NOTEBOOK.name).write_text(json.dumps(notebook))
    return folder


@pytest.fixture
def serve(tmp_path):
    """Starts a server in a process group of its own, which is ended with the test; returns its address."""
    servers = []

    def start(*arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = tmp_path / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        quiet = {"fetchNews": "false", "checkForUpdates": False}
        (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
        whole = tmp_path / "settings" / "@jupyterlab" / "notebook-extension"
        whole.mkdir()
        (whole / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
        folders = {f"JUPYTER{kind}": str(tmp_path / kind) for kind in ("_CONFIG_DIR", "_DATA_DIR", "_RUNTIME_DIR")}
        folders |= {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path)}
        study = os.pathsep.join(
            filter(None, (str(NOTEBOOK.parent), os.environ.get("PYTHONPATH")))
        )  # as `make lab` does
        environment = os.environ | folders | {"PYTHONPATH": study}
        with open(tmp_path / "server.log", "w") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", *(argument.format(port=port) for argument in arguments)],
                env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        servers.append(server)
        address = f"http://127.0.0.1:{port}"
        wait(lambda: _answers(server, address, tmp_path / "server.log"), "the server starts")
        return address

    yield start
    for server in servers:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _answers(server, address, log):
    assert server.poll() is None, log.read_text()
    try:
        # JupyterLab's first page is large; the page has no icon and says so.
        return urllib.request.urlopen(f"{address}/static/favicons/favicon.ico", timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@pytest.fixture
def page():
    """A page of a browser that remembers what went wrong: page.errors."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, headless=True, args=ALONE)
        page = browser.new_page(viewport=SCREEN)
        page.set_default_timeout(1000 * PATIENCE)
        page.errors, page.asked = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                page.errors.append(f"{message.text} {message.location}") if message.type == "error" else None
            ),
        )
        yield page
        browser.close()


class Widgets:
    """The controls in JupyterLab."""

    height = 640  # pixels of SCREEN that the menu, the tabs and the tools leave

    def __init__(self, page):
        self.page, self.picture, self.drawn = page, *(page.locator("img.jupyter-widgets").nth(k) for k in (0, 1))
        words = page.locator(".jupyter-widgets.widget-html")
        self.text, self.said = words.nth(0), words.nth(2)
        selects, fields = page.locator(".jupyter-widgets select"), page.locator(".jupyter-widgets input[type=text]")
        self.crystal, self.anode, self.target, self.hidden, self.candidates = (selects.nth(k) for k in range(5))
        self.formula, self.elements, self.number = (fields.nth(k) for k in range(3))

    def view(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def rows(self):
        return [text for text in self.candidates.locator("option").all_inner_texts() if text.strip()]

    def choose(self, place):
        self.candidates.select_option(index=place)

    def upload(self, file):
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="upload a scan").click()
        chooser.value.set_files(file)


class Page:
    """The controls of the page."""

    height = SCREEN["height"]

    def __init__(self, page):
        self.page, self.picture, self.drawn = page, page.locator("#picture img"), page.locator("#drawn img")
        self.text, self.said = page.locator("#text"), page.locator("#said")
        names = ("crystal", "anode", "hidden", "target", "formula", "elements", "number")
        for name in names:
            setattr(self, name, page.locator(f"#{name}"))

    def view(self, name):
        self.page.get_by_label(name, exact=True).check()

    def rows(self):
        return self.page.locator("output tbody tr").all_inner_texts()

    def choose(self, place):
        self.page.locator("output tbody tr").nth(place).click()

    def upload(self, file):
        self.page.locator("#file").set_input_files(file)


def figure(controls, picture="picture"):
    """Where a picture comes from: another address for each picture, "" while there is none."""
    loaded = "images => images.length && images[0].complete && images[0].naturalWidth ? images[0].src : ''"
    return getattr(controls, picture).evaluate_all(loaded)


def changes(controls, act, what, picture="picture"):
    """Do something and wait until the picture is another one."""
    before = figure(controls, picture)
    act()
    wait(lambda: figure(controls, picture) not in (before, ""), f"the figure follows: {what}")


def says(controls, words, what, where="text"):
    """Wait until the text holds some words."""
    wait(lambda: words in " ".join(getattr(controls, where).all_inner_texts()), what)


def enter(field, value):
    field.fill(value)
    field.press("Enter")


def use_every_control(controls):
    """Choose, type, press and upload; each must be seen, and nothing of what was before."""
    wait(lambda: figure(controls), "a first figure")
    changes(controls, lambda: controls.crystal.select_option(index=3), "another crystal")
    changes(controls, lambda: controls.target.select_option(index=0), "reasons for another target")
    for name in ("hidden parts", "attention", "similar training crystals"):
        changes(controls, lambda name=name: controls.view(name), name)
        if name == "hidden parts":
            changes(controls, lambda: controls.hidden.select_option(index=[4, 5]), "hidden parts")
    changes(controls, lambda: controls.view("answer"), "answer")
    assert not controls.anode.is_visible() and not controls.number.is_visible(), "a crystal's pattern is simulated"

    controls.upload(SCAN)
    says(controls, "NaCl.uxd, answered from the pattern", "a scan alone")
    enter(controls.elements, "Na Cl")
    says(controls, "elements known", "the elements", "said")
    changes(controls, lambda: enter(controls.formula, "NaCl"), "formula")
    says(controls, "NaCl and NaCl.uxd", "formula and scan")
    assert controls.elements.input_value() == ""
    use_candidates(controls)
    fits(controls)
    changes(controls, lambda: controls.anode.select_option(label="Mo"), "anode")
    enter(controls.formula, "NaCL")
    says(controls, "no chemical formula", "a typo is refused in words")
    assert not figure(controls)

    photograph = {"name": "photograph.xy", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff\xe0" + bytes(100)}
    controls.upload(photograph)
    says(controls, "JPEG", "a photograph is refused in words")
    enter(controls.formula, "KCl")
    says(controls, "photograph.xy: this is a JPEG", "it stays refused, whatever the formula")
    assert not figure(controls) and controls.anode.input_value() in ("", "as in the file")

    controls.upload({"name": "two.ras", "mimeType": "text/plain", "buffer": TWO_SCANS})
    says(controls, "two.ras, answered from the pattern", "the next upload starts anew")
    says(controls, "control `scan number`", "there is another scan")
    assert controls.formula.input_value() == ""
    changes(controls, lambda: enter(controls.number, "1"), "another scan of the file")
    enter(controls.number, "2")
    says(controls, "there is no scan 2", "no such scan")
    changes(controls, lambda: controls.crystal.select_option(index=2), "a crystal again")
    assert controls.number.input_value() == "" and "two.ras" not in controls.text.inner_text()


def use_candidates(controls):
    """Of NaCl.uxd: click each of the known crystals, save one, and see that they go with the scan."""
    rows = wait(controls.rows, "the list")
    assert len(rows) > 1 and "none\xa0of\xa0these" in rows[-1].replace(" ", "\xa0")
    changes(controls, lambda: controls.choose(len(rows) - 1), "none of these", "drawn")
    says(controls, "none of the known crystals is right", "what is to be done", "said")
    link = controls.page.locator("a[download]")
    assert link.count() == 0
    changes(controls, lambda: controls.choose(0), "the first of them", "drawn")
    says(controls, "formula known", "what it is", "said")
    with controls.page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename.endswith(".cif")
    with open(download.value.path()) as file:
        assert "_cell_length_a" in file.read()
    changes(controls, lambda: controls.view("attention"), "attention")
    wait(lambda: not controls.rows() and not link.count(), "the list goes with its view")
    changes(controls, lambda: controls.view("answer"), "answer")


def hosts(page):
    """Whom a page has asked for something."""
    return {urlsplit(url).hostname for url in page.asked if not url.startswith(("data:", "blob:"))}


SEEN = "element => element.scrollWidth <= element.clientWidth + 1"


def fits(controls):
    """The scan, the answer, the reasons and the known crystals are in one view, and no control is cut."""
    names = ("picture", "drawn", "text", "said", "crystal", "target")

    def places():
        found = [getattr(controls, name).first.bounding_box() for name in names]
        return found if all(found) else None

    boxes = wait(lambda: controls.rows() and places(), "every part is seen")
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= SCREEN["width"] for box in boxes)
    assert max(box["y"] + box["height"] for box in boxes) - min(box["y"] for box in boxes) <= controls.height
    for control in (controls.crystal, controls.formula, controls.elements, controls.anode, controls.number):
        assert control.evaluate(SEEN), "it is cut"


def test_in_jupyterlab(root, serve, page):
    address = serve("jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port={port}", "--ServerApp.port_retries=0",
                    "--IdentityProvider.token=t", "--allow-root", f"--ServerApp.root_dir={root}")  # fmt: skip
    page.goto(f"{address}/lab/tree/{NOTEBOOK.name}?token=t&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")

    def kernels():
        try:
            return json.load(urllib.request.urlopen(f"{address}/api/kernels?token=t"))
        except urllib.error.HTTPError:  # jupyter_server's, of a kernel that is only just starting
            return []

    def prompts():
        return [text.strip() for text in page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()]

    wait(lambda: any(k["execution_state"] == "idle" and k["connections"] for k in kernels()), "a kernel")
    while set(prompts()) <= {"[ ]:", "[]:", ""}:  # the first click may come before the menu listens
        page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
        page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
        page.wait_for_timeout(2000)
    failed = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    wait(lambda: failed.count() or all(text.strip("[]: ").isdigit() for text in prompts()), "all cells ran")
    assert failed.all_inner_texts() == []
    use_every_control(Widgets(page))
    assert hosts(page) == {"127.0.0.1"}
    assert failed.all_inner_texts() == []
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts() == []
    assert page.errors == []


def test_as_a_page(checkpoint, serve, page):
    page.goto(serve("xxlib.serve", "--model", str(checkpoint), "--port={port}"))
    use_every_control(Page(page))
    assert page.errors == []
    assert hosts(page) == {"127.0.0.1"}


def test_the_page_says_what_it_does_not_take_and_when_it_is_gone(checkpoint, serve, page, tmp_path):
    page.goto(serve("xxlib.serve", "--model", str(checkpoint), "--port={port}"))
    controls = Page(page)
    wait(lambda: figure(controls), "a first figure")
    (tmp_path / "long.xy").write_bytes(bytes(30_000_000))
    controls.upload(tmp_path / "long.xy")
    says(controls, "long.xy: This file is larger than 20 MB", "too large a file is not sent")
    controls.formula.fill("N")
    assert not figure(controls), "a formula that is being typed has no answer yet"
    changes(controls, lambda: controls.crystal.select_option(index=1), "a crystal again")
    page.route("**/look?*", lambda route: route.abort())
    controls.crystal.select_option(index=2)
    says(controls, "The page did not answer", "a page that is gone")
    assert not figure(controls)
