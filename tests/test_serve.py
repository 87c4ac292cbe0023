"""The page without a browser: what it answers, what it refuses in words, and what visitors cannot take from it."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from xxlib import PROJECT, serve
from xxlib.datasets.preparing.workers import WorkersFailed
from xxlib.serve import Desk

SCAN = PROJECT / "data" / "examples" / "NaCl.uxd"
PATIENCE = 120  # seconds


@pytest.fixture(scope="module")
def server(checkpoint):
    """A page of its own process, on a port of its own: (process, port)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "xxlib.serve", "--model", checkpoint, "--port", port]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert f":{port}/" in process.stdout.readline()
    yield psutil.Process(process.pid), port
    process.terminate()
    process.wait(15)


def get(server, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{server[1]}{path}", timeout=PATIENCE) as reply:
        return reply.read()


def look(server, content=b"", **query):
    """(status, reply) of a question."""
    url = f"http://127.0.0.1:{server[1]}/look?{urllib.parse.urlencode(query, doseq=True)}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, content, method="POST"), timeout=PATIENCE) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def connection(server, sent):
    """A connection on which something was sent."""
    other = socket.create_connection(("127.0.0.1", server[1]))
    other.sendall(sent)
    return other


def memory(server):
    """MB of the server, of its workers."""
    workers = server[0].children(recursive=True)
    return server[0].memory_info().rss / 1e6, sum(worker.memory_info().rss for worker in workers) / 1e6


def test_a_scan_and_a_crystal_are_answered(server):
    controls = json.loads(get(server, "/controls"))
    assert len(controls["crystals"]) == len(controls["formulas"]) > 20 and "Mo" in controls["anodes"]
    pictures, saids = (
        set(),
        {"answer": ", answered from the formula and the pattern", "attention": ": how much each part"},
    )
    for view in controls["views"]:
        status, reply = look(server, SCAN.read_bytes(), name="NaCl.uxd", formula="NaCl", view=view, hidden=[5, 6])
        assert status == 200 and reply["answered"]
        assert reply["text"].startswith(f"NaCl and NaCl.uxd{saids.get(view, ': ')}")
        assert bool(reply["bars"]) == bool(reply["candidates"]) == (view == "answer")
        pictures.add(base64.b64decode(reply["picture"]))
    assert len(pictures) == 4 and all(picture.startswith(b"\x89PNG") for picture in pictures)
    _, reply = look(server, crystal=3, formula="NaCl")
    assert reply["text"].startswith(f"NaCl and {controls['crystals'][3].split()[-1]}, answered")
    assert b"<script>" in get(server, "/")


def test_known_crystals_are_a_list_with_all_that_is_seen_of_each(server):
    """A click asks nothing: what it shows came with the list, so that the page has nothing to remember."""
    columns = json.loads(get(server, "/controls"))["columns"]
    _, reply = look(server, SCAN.read_bytes(), name="NaCl.uxd", formula="NaCl")
    found = reply["candidates"]
    assert len(found) > 1 and all(len(one["row"]) == len(columns) for one in found)
    assert found[reply["chosen"]]["picture"] not in ("", reply["picture"])
    assert [bool(one["cif"]) for one in found] == [True] * (len(found) - 1) + [False]
    assert found[-1]["row"][1] == "none of these" and "_cell_length_a" in found[0]["cif"]
    _, other = look(server, SCAN.read_bytes(), name="NaCl.uxd", elements="Na, Cl")
    assert (
        other["text"].startswith("NaCl.uxd, answered from the pattern")
        and "elements known" in other["candidates"][0]["text"]
    )


WRONG = {
    "no file": (b"", {"formula": "NaCl"}, 200, "no scan was uploaded yet"),
    "an empty file": (b"", {"name": "a.xy"}, 200, "a.xy: the file is empty"),
    "a photograph": (b"\xff\xd8\xff\xe0" + bytes(99), {"name": "a.xy"}, 200, "a.xy: this is a JPEG picture"),
    "a folder": (b"\xff\xd8\xff\xe0", {"name": "../../.."}, 200, "scan: this is a JPEG picture"),
    "a long name": (b"\xff\xd8\xff\xe0", {"name": 900 * "a"}, 200, f"{60 * 'a'}: this is a JPEG picture"),
    "an anode": (SCAN.read_bytes(), {"anode": "Xy"}, 200, "there is no anode 'Xy'"),
    "a scan": (SCAN.read_bytes(), {"number": "5"}, 200, "there is no scan 5"),
    "no number": (SCAN.read_bytes(), {"number": "-1"}, 200, "'-1' is no number of a scan"),
    "a formula": (SCAN.read_bytes(), {"formula": "<b>"}, 200, "'<b>' is no chemical formula"),
    "elements": (SCAN.read_bytes(), {"elements": "Na Xx"}, 200, "'Na Xx' is no list of elements"),
    "formula and elements": (SCAN.read_bytes(), {"formula": "NaCl", "elements": "Na"}, 200, "leave one of the two"),
    "a crystal": (b"", {"crystal": 10**6}, 400, "does not understand"),
    "a view": (b"", {"crystal": 1, "view": "code"}, 400, "does not understand"),
    "a target": (b"", {"crystal": 1, "target": "x"}, 400, "does not understand"),
    "a token": (b"", {"crystal": 1, "hidden": "x"}, 400, "does not understand"),
    "too large": (bytes(serve.LARGEST_SCAN + 1), {"name": "a.xy"}, 413, "larger than 20 MB"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_sentence(server, name):
    content, query, status, sentence = WRONG[name]
    code, reply = look(server, content, **query)
    assert code == status and sentence in reply["text"] and not reply["picture"] and not reply["answered"]
    assert "Traceback" not in reply["text"] and "\n" not in reply["text"]


def test_an_upload_that_does_not_say_how_long_it_is(server):
    """In chunks, three times as long as the page takes."""
    pieces = (bytes(1_000_000) for _ in range(60))
    url = f"http://127.0.0.1:{server[1]}/look?name=a.xy"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, pieces, method="POST"), timeout=PATIENCE)
    assert caught.value.code == 413 and "larger than 20 MB" in json.load(caught.value)["text"]
    assert memory(server)[0] < 150


def test_nothing_else_is_there(server):
    for path in ("/etc/passwd", "/..%2f..%2fserve.py", "/api/kernels", "/voila/files/x", "/look"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(server, path)
        assert caught.value.code in (404, 405) and "does not understand" in json.load(caught.value)["text"]
    upgrade = (
        b"GET /api/kernels/1-1-1-1-1/channels HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    with connection(server, upgrade) as other:
        assert other.recv(12) == b"HTTP/1.1 404"


def test_visitors_leave_nothing_behind(server):
    """Twenty who ask and wait, twenty who ask and leave, twenty half uploads."""
    look(server, crystal=0)
    before, workers = memory(server), server[0].children(recursive=True)
    with ThreadPoolExecutor(20) as crowd:
        replies = [*crowd.map(lambda k: look(server, crystal=k), range(20))]
    answered = [reply["answered"] for status, reply in replies if status == 200]
    assert all(answered) and len(answered) >= serve.QUESTIONS_OF_ONE
    assert {status for status, _ in replies} <= {200, 429}
    question = b"POST /look?crystal=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    half = b"POST /look?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + bytes(99_999)
    for head in (question, half, half):
        others = [connection(server, head) for _ in range(20)]
        time.sleep(0.5)
        assert head == question or look(server, crystal=1)[0] == 429, "it waits for the rest of the uploads"
        for other in others:
            other.close()
        start = time.monotonic()
        while (status := look(server, crystal=1)[0]) != 200:
            assert status == 429 and time.monotonic() - start < 20
            time.sleep(0.2)
    after = memory(server)
    assert after[0] < before[0] + 20 and after[1] < before[1] + 200
    assert server[0].children(recursive=True) == workers and server[0].num_fds() < 20


def test_one_address_has_so_many_connections(server):
    def open_ones():
        return sum(one.status == psutil.CONN_ESTABLISHED for one in server[0].net_connections())

    others = [connection(server, b"GET / HTTP/1.1\r\nX-Slow: ") for _ in range(serve.CONNECTIONS_OF_ONE)]
    until(lambda: open_ones() >= serve.CONNECTIONS_OF_ONE)
    with pytest.raises(OSError):
        get(server, "/controls")
    for other in others:
        other.close()
    until(lambda: not open_ones())
    assert get(server, "/controls")


def until(true, seconds=20):
    """Wait until something is true; fails after as many seconds."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds
        time.sleep(0.05)


def test_a_worker_that_dies_is_replaced(server):
    (worker,) = server[0].children()
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(0.5)
    status, reply = look(server, crystal=1)
    assert status == 200 and reply["answered"] and server[0].children() != [worker]


@pytest.fixture
def desk(checkpoint, monkeypatch):
    """A Desk whose workers do what the formula says: tests.hostile_page."""
    monkeypatch.syspath_prepend(PROJECT / "tests")
    import hostile_page

    monkeypatch.setattr(serve, "_look", hostile_page.look)
    desk = Desk(str(checkpoint), 1)
    yield desk
    desk.close()


@pytest.mark.parametrize(
    ("deed", "sentence"),
    [("hangs", serve.TOO_LONG), ("crashes", serve.TOO_MUCH), ("eats", "more memory"),
     ("stumbles", "KeyError: 'missing'")],
)  # fmt: skip
def test_whatever_a_question_does_the_next_one_is_answered(desk, deed, sentence):
    reply = desk.answer({"crystal": 0, "formula": deed})
    assert sentence in reply["text"] and not reply["answered"] and "\n" not in reply["text"]
    assert desk.answer({"crystal": 0, "formula": ""})["answered"]


def test_a_checkpoint_or_a_port_that_is_not_there():
    with pytest.raises(WorkersFailed, match="no checkpoint nowhere"):
        Desk("nowhere", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit, match="choose another with --port"):
            serve.main(["--port", str(taken.getsockname()[1])])
