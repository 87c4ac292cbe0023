"""Notebook 07 as its users see it: in JupyterLab and as a page of Voila, in a browser without a screen."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from xxlib import PROJECT

NOTEBOOK = PROJECT / "notebooks" / "07_from_scan_to_answer.ipynb"
SCAN = PROJECT / "data" / "examples" / "NaCl.uxd"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ALONE = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip
PATIENCE = 240  # seconds: on an idle machine a tenth of it is enough

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
        environment = os.environ | folders
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
        # Voila would run the notebook for its first page; both have static files.
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
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(1000 * PATIENCE)
        page.errors = []
        # Voila's template asks for an icon font there; the page does without.
        page.route("https://cdn.jsdelivr.net/**", lambda route: route.fulfill(status=200, body=""))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                page.errors.append(f"{message.text} {message.location}") if message.type == "error" else None
            ),
        )
        yield page
        browser.close()


def figure(page):
    """Where the picture of the explorer comes from: another address for each picture, "" while it shows none."""
    picture = page.locator("img.jupyter-widgets").first
    return picture.evaluate("image => image.complete && image.naturalWidth ? image.src : ''")


def changes(page, act, what):
    """Do something and wait until the picture is another one."""
    before = figure(page)
    act()
    wait(lambda: figure(page) not in (before, ""), f"the figure follows: {what}")


def upload(page, file):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="upload a scan").click()
    chooser.value.set_files(file)


def use_every_control(page):
    """Choose, type, press and upload; each must be seen."""
    page.locator("img.jupyter-widgets").first.wait_for()
    said = page.locator(".jupyter-widgets.widget-html").last
    wait(lambda: figure(page), "a first figure")
    selects = page.locator(".jupyter-widgets select")
    crystal, anode, hidden, target = (selects.nth(k) for k in range(4))
    changes(page, lambda: crystal.select_option(index=3), "another crystal")
    for name in ("tokens", "attention", "attribution", "known materials"):
        changes(page, lambda name=name: page.get_by_role("button", name=name, exact=True).click(), name)
        if name == "tokens":
            changes(page, lambda: hidden.select_option(index=[4, 5]), "hidden tokens")
        if name == "attribution":
            changes(page, lambda: target.select_option(index=1), "another target")
    changes(page, lambda: page.get_by_role("button", name="answer", exact=True).click(), "answer")

    upload(page, SCAN)
    wait(lambda: "NaCl.uxd, answered from xrd" in said.inner_text(), "a scan alone")
    formula = page.locator(".jupyter-widgets input[type=text]").first
    formula.fill("NaCl")
    changes(page, lambda: formula.press("Enter"), "formula")
    assert "NaCl and NaCl.uxd" in said.inner_text()
    changes(page, lambda: anode.select_option(label="Mo"), "anode")
    formula.fill("NaCL")
    formula.press("Enter")
    wait(lambda: "no chemical formula" in said.inner_text(), "a typo is refused in words")
    photograph = {"name": "photograph.xy", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff\xe0" + bytes(100)}
    upload(page, photograph)
    wait(lambda: "JPEG" in said.inner_text(), "a photograph is refused in words")


def test_in_jupyterlab(root, serve, page):
    address = serve("jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port={port}", "--ServerApp.port_retries=0",
                    "--IdentityProvider.token=t", "--allow-root", f"--ServerApp.root_dir={root}")  # fmt: skip
    page.goto(f"{address}/lab/tree/{NOTEBOOK.name}?token=t&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")

    def kernels():
        return json.load(urllib.request.urlopen(f"{address}/api/kernels?token=t"))

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
    use_every_control(page)
    assert failed.all_inner_texts() == []
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts() == []
    assert page.errors == []


def test_as_a_page_of_voila(root, serve, page):
    address = serve("voila", str(root / NOTEBOOK.name), "--no-browser", "--Voila.ip=127.0.0.1", "--port={port}")
    page.goto(address)
    use_every_control(page)
    assert page.locator("pre.error, .jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert "widgets.explore" not in page.locator("body").inner_text(), "a page without code"
    assert page.errors == []
