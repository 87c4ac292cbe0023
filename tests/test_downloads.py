"""Downloads and archives: what is there is whole and the one that was meant, whatever server, network and file do."""

import bz2
import gzip
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xxlib.datasets import downloads
from xxlib.datasets.archives import unpack
from xxlib.datasets.downloads import DownloadError, fetch, file_name

DATA = bytes(range(256)) * 2000  # 512,000 bytes: several pieces
DIGEST = hashlib.sha256(DATA).hexdigest()


class Site:
    """A server on this machine; pages[path], or pages["/*"], is a list of answers, of which the last stays."""

    def __init__(self):
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                answers = site.pages.get(self.path) or site.pages["/*"]
                site.ranges.append(self.headers.get("Range"))
                site.versions.append(self.headers.get("If-Range"))
                self.close_connection = True
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, *args):
                pass

        self.pages, self.ranges, self.versions, self.over = {}, [], [], threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.block_on_close = True, False
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def page(self, path, *answers):
        self.pages[path] = list(answers)
        return f"http://127.0.0.1:{self.server.server_port}{path}"


def head(handler, status, **headers):
    handler.send_response(status)
    handler.send_header("Connection", "close")
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def status(code, **headers):
    return lambda handler: head(handler, code, Content_Length=0, **headers)


def sends(data=DATA, etag=None, cut=None, obeys_if_range=True, then=lambda handler: None, **headers):
    """Answer with data as a server does that knows ranges; `cut`: no more than so many bytes of them, then `then`."""

    def answer(handler):
        first, tag = 0, {"ETag": etag} if etag else {}
        same = handler.headers.get("If-Range") == etag or not obeys_if_range
        if etag and same and handler.headers.get("Range"):
            first = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            place = f"bytes {first}-{len(data) - 1}/{len(data)}"
            head(handler, 206, Content_Length=len(data) - first, Content_Range=place, **tag, **headers)
        else:
            head(handler, 200, Content_Length=len(data), **tag, **headers)
        handler.wfile.write(data[first:cut])
        handler.wfile.flush()
        then(handler)

    return answer


def chunked(data, broken=False):
    def answer(handler):
        head(handler, 200, Transfer_Encoding="chunked")
        for start in range(0, len(data), 50_000):
            piece = data[start : start + 50_000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"" if broken else b"0\r\n\r\n")

    return answer


def tree(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.3)
    monkeypatch.setattr(downloads, "FIRST_WAIT", 0.01)
    site = Site()
    yield site
    site.over.set()
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def folder(tmp_path):
    """An empty folder; around it nothing may change."""
    around = tmp_path / "around"
    (around / "folder").mkdir(parents=True)
    (around / "note.txt").write_text("stays")
    yield around / "folder"
    outside = {name: data for name, data in tree(tmp_path).items() if not name.startswith("around/folder/")}
    assert outside == {"around": False, "around/folder": False, "around/note.txt": b"stays"}


def page_of_html(handler):
    head(handler, 200, Content_Type="text/html; charset=utf-8", Content_Length=17)
    handler.wfile.write(b"<p>Please log in.")


STALL = sends(cut=300_000, then=lambda handler: time.sleep(1))
REFUSED = {
    "wrong hash": ([sends(DATA[:-1])], "its sha256 is not"),
    "short body": ([sends(cut=400_000)], "400,000|400000"),
    "short body in chunks": ([chunked(DATA, broken=True)], "the connection failed"),
    "stall": ([STALL], "no byte for 0.3 s"),
    "stall before the first byte": ([lambda handler: time.sleep(1)], "no byte for 0.3 s"),
    "429": ([status(429)], "the server answers 429 Too Many Requests"),
    "429 for an hour": ([status(429, Retry_After=3600)], "asks to wait 3600 s .try 1 of 5"),
    "500": ([status(500)], "the server answers 500 Internal Server Error .try 5 of 5"),
    "404": ([status(404)], "the server answers 404 Not Found: check the address"),
    "connection closed": ([lambda handler: None], "the connection failed"),
    "redirect to file": ([status(302, Location="file:///etc/passwd")], "no http or https address .*file:///etc/passwd"),
    "redirect to ftp": ([status(301, Location="ftp://127.0.0.1/data.bin")], "no http or https address"),
    "redirect in a circle": ([status(302, Location="/data.bin")], "leads in a circle"),
    "wrong content type": ([page_of_html], "a web page where data should be"),
    "login page said to be data": ([sends(b"\n<!DOCTYPE html><p>Log in")], "a web page where data should be"),
    "larger than the limit": ([sends(DATA * 2)], "1,024,000 bytes or more, the limit is 600,000"),
    "larger than the limit in chunks": ([chunked(DATA * 2)], "the limit is 600,000"),
    "length unknown": ([lambda handler: (head(handler, 200), handler.wfile.write(DATA))], "does not say how long"),
    "empty": ([sends(b"")], "an empty file"),
    "a part that was not asked for": ([status(206, Content_Range="pages 1-2")], "does not say which"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_fault_is_one_clear_error_and_no_file(site, folder, fault):
    answers, reason = REFUSED[fault]
    url = site.page("/data.bin", *answers)
    with pytest.raises(DownloadError, match=reason) as caught:
        fetch(url, folder=folder, sha256=DIGEST, max_bytes=600_000)
    assert str(caught.value).startswith(url) and "\n" not in str(caught.value)
    kept = set(tree(folder))
    assert kept <= {".data.bin.part", ".data.bin.version"}  # to go on from, never under the file's own name
    # And when the server is well again, none of it is in the way.
    site.page("/data.bin", sends())
    assert fetch(url, folder=folder, sha256=DIGEST, progress=False).read_bytes() == DATA
    assert set(tree(folder)) == {"data.bin"}


def test_tries_are_counted(site, folder):
    url = site.page("/data.bin", status(503))
    with pytest.raises(DownloadError, match="503"):
        fetch(url, folder=folder)
    assert len(site.ranges) == downloads.TRIES


@pytest.mark.parametrize("code", [429, 500, 502, 503])
def test_a_busy_server_is_asked_again(site, folder, code):
    url = site.page("/data.bin", status(code), status(code), sends())
    assert fetch(url, folder=folder).read_bytes() == DATA
    assert len(site.ranges) == 3


def test_retry_after_is_honoured(site, folder):
    url = site.page("/data.bin", status(429, Retry_After=1), sends())
    start = time.monotonic()
    assert fetch(url, folder=folder).read_bytes() == DATA
    assert time.monotonic() - start > 1


def test_short_body_is_continued(site, folder):
    url = site.page("/data.bin", sends(cut=200_000, etag='"1"'), sends(cut=400_000, etag='"1"'), sends(etag='"1"'))
    assert fetch(url, folder=folder).read_bytes() == DATA
    first, *others = [int(asked[6:-1]) if asked else 0 for asked in site.ranges]
    assert first == 0 and others == sorted(others) and others[0] > 100_000 and len(others) >= 2


def test_stall_is_continued(site, folder):
    url = site.page("/data.bin", sends(cut=300_000, etag='"1"', then=lambda handler: time.sleep(1)), sends(etag='"1"'))
    assert fetch(url, folder=folder).read_bytes() == DATA
    assert site.ranges[1] and site.ranges[1] != "bytes=0-"


def test_without_a_version_nothing_is_continued(site, folder):
    """A weak ETag may be the same for different bytes."""
    url = site.page("/data.bin", sends(cut=300_000, etag='W/"1"'), sends(DATA[::-1], etag='W/"1"'))
    assert fetch(url, folder=folder).read_bytes() == DATA[::-1]
    assert site.ranges == [None, None]


@pytest.mark.parametrize("obeys_if_range", [True, False])
def test_a_file_that_changes_between_tries_is_not_spliced(site, folder, obeys_if_range):
    new = sends(DATA[::-1], etag='"new"', obeys_if_range=obeys_if_range)
    url = site.page("/data.bin", sends(cut=300_000, etag='"old"'), new)
    assert fetch(url, folder=folder).read_bytes() == DATA[::-1]
    assert site.ranges[1] and site.versions[1] == '"old"'


def test_ranges_shorter_than_asked_for(site, folder):
    def some(handler):
        first = int(handler.headers["Range"][6:-1])
        place = f"bytes {first}-{first + 99_999}/{len(DATA)}"
        head(handler, 206, Content_Length=100_000, Content_Range=place, ETag='"1"')
        handler.wfile.write(DATA[first : first + 100_000])

    url = site.page("/data.bin", sends(cut=300_000, etag='"1"'), some, some, sends(etag='"1"'))
    assert fetch(url, folder=folder, sha256=DIGEST).read_bytes() == DATA


def test_a_file_that_has_become_shorter(site, folder):
    def short(handler):
        if handler.headers.get("Range"):
            head(handler, 416, Content_Length=0, Content_Range="bytes */1000")
        else:
            sends(DATA[:1000])(handler)

    url = site.page("/data.bin", sends(cut=300_000, etag='"old"'), short)
    assert fetch(url, folder=folder).read_bytes() == DATA[:1000]


def test_redirects_on_the_web_are_followed(site, folder):
    site.page("/there/other-name", sends())
    url = site.page("/data.bin", status(302, Location="/there/other-name"))
    assert fetch(url, folder=folder) == folder / "data.bin"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "/etc/passwd", "http://", "data:,x", ""])
def test_only_addresses_of_the_web(folder, url):
    with pytest.raises(DownloadError, match="not an http or https address"):
        fetch(url, folder=folder)
    assert not tree(folder)


def test_what_is_there_is_not_downloaded_again(site, folder, monkeypatch):
    url = site.page("/data.bin", sends())
    monkeypatch.setenv("XXLIB_CACHE", str(folder / "cache"))
    first, second = fetch(url), fetch(url, sha256=DIGEST.upper())
    assert first == second and first.is_relative_to(folder / "cache") and len(site.ranges) == 1
    # An URL has a folder of its own in the cache; the last part of two URLs may be the same.
    other = fetch(site.page("/other/data.bin", sends(DATA[::-1])))
    assert other.name == first.name and other.read_bytes() == DATA[::-1] and first.read_bytes() == DATA
    first.write_bytes(b"damaged")
    assert fetch(url, sha256=DIGEST).read_bytes() == DATA


NAMES = {
    "/data/alexandria_000.json.bz2": "alexandria_000.json.bz2",
    "/x.zip?download=1#top": "x.zip",
    "/..%2f..%2fnote.txt": "_.._note.txt",
    "/a/%2e%2e": "download",
    "/%2fetc%2fpasswd": "_etc_passwd",
    "/..%5cnote.txt": "_note.txt",
    "/a%00b%0a.txt": "a_b_.txt",
    "/.bashrc": "bashrc",
    "/" + "long" * 100 + ".zip": ("long" * 100 + ".zip")[-150:],
    "/": "download",
}


@pytest.mark.parametrize("path", NAMES)
def test_name_in_the_url_leads_nowhere_else(site, folder, path):
    url = site.page("/*", sends()).removesuffix("/*") + path
    assert file_name(url) == NAMES[path]
    assert fetch(url, folder=folder) == folder / NAMES[path]
    assert set(tree(folder)) == {NAMES[path]}


def test_progress(site, folder, capfd):
    fetch(site.page("/data.bin", status(500), sends()), folder=folder)
    shown = capfd.readouterr().err
    assert "data.bin" in shown and "100%" in shown and "500k/500k" in shown and "next try in" in shown
    fetch(site.page("/quiet.bin", status(500), sends()), folder=folder, progress=False)
    assert capfd.readouterr() == ("", "")


def test_two_processes_do_not_write_one_file(site, folder):
    url = site.page("/data.bin", sends(cut=100_000, then=lambda handler: site.over.wait(20)))
    code = f"from xxlib.datasets.downloads import fetch; fetch({url!r}, folder={str(folder)!r}, progress=False)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as other:
        wait_until(lambda: (folder / ".data.bin.part").exists())
        with pytest.raises(DownloadError, match="another process is downloading"):
            fetch(url, folder=folder)
        other.kill()


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_download_goes_on_after_kill_9(site, folder):
    half = len(DATA) // 2
    waits = sends(cut=half, etag='"1"', then=lambda handler: site.over.wait(20))
    url = site.page("/data.bin", waits, sends(etag='"1"'))
    code = f"from xxlib.datasets.downloads import fetch; fetch({url!r}, folder={str(folder)!r}, progress=False)"
    part = folder / ".data.bin.part"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        wait_until(lambda: part.exists() and part.stat().st_size > half - 2 * downloads.PIECE)
        process.kill()
    assert process.returncode == -9
    have = part.stat().st_size
    assert set(tree(folder)) == {".data.bin.part", ".data.bin.version", ".data.bin.lock"}
    assert fetch(url, folder=folder, sha256=DIGEST).read_bytes() == DATA
    assert site.ranges == [None, f"bytes={have}-"] and have > 0
    assert set(tree(folder)) == {"data.bin"}


def test_folder_that_cannot_be_written(site, folder):
    (folder / "file").write_text("no folder")
    with pytest.raises(DownloadError, match="cannot write to"):
        fetch(site.page("/data.bin", sends()), folder=folder / "file" / "cache")


# Archives


def zip_of(*members, compress=zipfile.ZIP_DEFLATED):
    """Bytes of a zip file; members: (name, data) or (name, data, Unix mode)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        for name, data, *mode in members:
            info = zipfile.ZipInfo()
            info.filename = name
            info.compress_type = compress
            info.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def tar_of(*members, mode="w:gz", kind=tarfile.REGTYPE, link=""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, link
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def encrypted(data):
    """The bit that says so, set in the local and in the central header of the first member."""
    data = bytearray(data)
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def lying(data, size=5):
    """A zip whose headers say that its first member unpacks to few bytes."""
    data = bytearray(data)
    for place in (22, data.index(b"PK\x01\x02") + 24):
        data[place : place + 4] = size.to_bytes(4, "little")
    return bytes(data)


def cut_tar():
    """A plain tar whose second header is damaged, which tarfile takes for the end."""
    data = bytearray(tar_of(("a", b"1" * 512), ("b", b"2"), mode="w:"))
    data[1024 + 148 : 1024 + 156] = b"!" * 8
    return bytes(data)


TWO = (("data/a.cif", b"data_a"), ("data/more/b.cif", b"data_b"))
ZEROS = bytes(30_000_000)
WHOLE = {
    "zip": (zip_of(*TWO), dict(TWO)),
    "zip, stored, from no Unix": (zip_of(*((*member, 0) for member in TWO), compress=0), dict(TWO)),
    "zip with folders": (zip_of(("data/", b"", stat.S_IFDIR | 0o755), *TWO), dict(TWO)),
    "tar": (tar_of(*TWO, mode="w:"), dict(TWO)),
    "tar.gz": (tar_of(*TWO), dict(TWO)),
    "tar.bz2": (tar_of(*TWO, mode="w:bz2"), dict(TWO)),
    "tar of many members": (tar_of(*((f"{i}", b"x" * i) for i in range(0, 3000, 100))), None),
    "gz": (gzip.compress(b"[1, 2]"), {"labels.json": b"[1, 2]"}),
    "bz2": (bz2.compress(b"[1, 2]"), {"labels.json": b"[1, 2]"}),
    "zip in a zip stays packed": (zip_of(("in.zip", zip_of(*TWO))), {"in.zip": zip_of(*TWO)}),
}
BOMBS = {
    "archive bomb": (zip_of(*((f"{i}", b"") for i in range(200))), "more than 100 files"),
    "archive bomb, tar": (tar_of(*((f"{i}", b"") for i in range(200))), "more than 100 files"),
    "decompression bomb, zip": (zip_of(("zeros", ZEROS)), "bytes are in it"),
    "decompression bomb, gz": (gzip.compress(ZEROS), "bytes are in it"),
    "decompression bomb, bz2": (bz2.compress(ZEROS), "bytes are in it"),
    "decompression bomb, tar": (tar_of(("zeros", ZEROS)), "bytes are in it"),
    "decompression bomb of many files": (zip_of(*((f"{i}", ZEROS[:3_000_000]) for i in range(9))), "bytes are in it"),
    "nothing but folders": (
        bz2.compress(tar_of(("x", b""), mode="w:", kind=tarfile.DIRTYPE)[:512] * 30_000),
        "bytes are in it",
    ),
    "size that lies": (lying(zip_of(("zeros", ZEROS))), "damaged"),
    "long header": (tar_of(("x", b" " * 5_000_000), kind=tarfile.GNUTYPE_LONGNAME), "a header of 5,"),
    "../ in zip": (zip_of(*TWO, ("../note.txt", b"gone")), "'../note.txt' leads out"),
    "../ in tar": (tar_of(*TWO, ("data/../../note.txt", b"gone")), "leads out"),
    "..\\ in zip": (zip_of(("..\\note.txt", b"gone")), "leads out"),
    "absolute name": (zip_of(("/etc/xxlib", b"")), "'/etc/xxlib' leads out"),
    "absolute name in tar": (tar_of(("/etc/xxlib", b"")), "'/etc/xxlib' leads out"),
    "drive": (zip_of(("C:/xxlib", b"")), "leads out"),
    "symlink in zip": (zip_of(("out", b"..", stat.S_IFLNK | 0o777), ("out/note.txt", b"gone")), "'out' is a link"),
    "symlink": (tar_of(("out", b""), kind=tarfile.SYMTYPE, link=".."), "'out' is a link"),
    "hard link": (tar_of(("out", b""), kind=tarfile.LNKTYPE, link="../note.txt"), "'out' is a link"),
    "device": (tar_of(("zero", b""), kind=tarfile.CHRTYPE), "'zero' is a link or a device"),
    "pipe": (tar_of(("pipe", b""), kind=tarfile.FIFOTYPE), "'pipe' is a link or a device"),
    "name twice": (zip_of(TWO[0], ("data/./a.cif", b"other")), "'data/./a.cif' occurs twice"),
    "file as folder": (zip_of(("a", b""), ("a/b", b"")), "exists|Not a directory"),
    "name too long": (zip_of(("x" * 300, b"")), "name too long"),
    "encrypted": (encrypted(zip_of(*TWO)), "'data/a.cif' is encrypted"),
    "cut zip": (zip_of(*TWO)[:-30], "damaged"),
    "cut gz": (tar_of(*TWO)[:-30], "damaged"),
    "cut bz2": (bz2.compress(b"[1, 2]" * 100)[:-10], "damaged"),
    "cut tar": (tar_of(("a", b"1" * 512), ("b", b"2"), mode="w:")[:1024], "damaged"),
    "damaged tar": (cut_tar(), "damaged"),
    "damaged zip": (zip_of(("a", b"1234567890" * 9), compress=0).replace(b"5678", b"5670", 1), "damaged"),
    "error page": (b"<html>Too many requests", "neither zip nor tar nor gz nor bz2"),
    "empty": (b"", "neither zip nor tar"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_unpack(folder, name):
    content, expected = WHOLE[name]
    archive = folder / "labels.json.download"
    archive.write_bytes(content)
    out = unpack(archive, folder / "new" / "out")
    found = {path: data for path, data in tree(out).items() if data is not False}
    assert found.pop(".unpacked-sha256").decode() == hashlib.sha256(content).hexdigest()
    assert found == (expected or {f"{i}": b"x" * i for i in range(0, 3000, 100)})
    assert os.listdir(folder / "new") == ["out"]

    # Again: at once; another archive: not into the same folder.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert unpack(archive, out) == out and before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    archive.write_bytes(zip_of(("c", b"")))
    with pytest.raises(DownloadError, match="is not this archive unpacked"):
        unpack(archive, out)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_is_unpacked_of(folder, name):
    content, reason = BOMBS[name]
    archive = folder / "data.zip"
    archive.write_bytes(content)
    with pytest.raises(DownloadError, match=reason) as caught:
        unpack(archive, folder / "out", max_files=100)
    assert str(caught.value).startswith(f"{archive} is not unpacked: ") and "\n" not in str(caught.value)
    assert set(tree(folder)) == {"data.zip"}


def test_bytes_are_counted_while_unpacking(folder):
    archive = folder / "data.zip"
    archive.write_bytes(zip_of(("a", os.urandom(600)), ("b", os.urandom(600))))
    with pytest.raises(DownloadError, match="more than 1,000 bytes are in it"):
        unpack(archive, folder / "out", max_bytes=1000)
    assert unpack(archive, folder / "out", max_bytes=1200, max_files=2) == folder / "out"


def test_unpacking_again_after_kill_9(folder):
    archive = folder / "data.zip"
    archive.write_bytes(zip_of(*TWO))
    leftover = folder / ".out.unfinished"
    leftover.mkdir()
    (leftover / "half a file").write_text("")
    assert set(tree(unpack(archive, folder / "out"))) >= {"data/a.cif", "data/more/b.cif"}
    assert set(tree(folder)) & {".out.unfinished", "out/half a file"} == set()
