"""Files from the web: each downloaded once, whole and checked.

pooch keeps the cache: where it is, whether a file is in it, its sha256, the move to its final name.  Its own downloader
cannot resume, has no limit of size and takes a login page for data, so `_download` stands in for it.
"""

import logging
import os
import re
import sys
import time
from functools import partial
from hashlib import sha1
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pooch
import requests
import urllib3
from tqdm import tqdm

from xxlib.datasets.writing import locked

log = logging.getLogger(__name__)
TIMEOUT = 30.0  # seconds, to connect and between two bytes
TRIES = 5
FIRST_WAIT = 1.0  # seconds before the second try, doubled before each further one
LONGEST_WAIT = 300.0  # seconds that a server may ask us to wait
PIECE = 1 << 16  # bytes read at once


class DownloadError(OSError):
    """A file was not downloaded or an archive not unpacked: which, what happened, the way out."""


class _Refused(Exception):
    """Another try would end the same way."""


class _Interrupted(Exception):
    """Another try may go better; `wait` is the number of seconds the server asks for."""

    def __init__(self, what, wait=0.0):
        super().__init__(what)
        self.wait = wait


def fetch(url, *, folder=None, sha256=None, max_bytes=10_000_000_000, progress=True):
    """Path of the file at an http(s) URL, downloaded where it is not there yet.

    folder: where it goes, under the last part of the URL's path.  None: a folder of its own for each URL in the cache,
    which is $XXLIB_CACHE or the system's folder of caches.  A file that is there already is taken as it is if its
    sha256 is the one given or none is given, and replaced otherwise.  A download that was interrupted goes on where it
    was if the server can tell that its file is still the same.

    Raises DownloadError.
    """
    name = file_name(url)
    folder = Path(folder) if folder else cache() / sha1(url.encode()).hexdigest()[:12]
    pooch.get_logger().setLevel("WARNING")  # its advice names arguments that are not ours
    download = partial(_download, folder=folder, name=name, max_bytes=max_bytes, progress=progress)
    known_hash = sha256 and f"sha256:{sha256}"
    try:
        return Path(pooch.retrieve(url, known_hash=known_hash, fname=name, path=folder, downloader=download))
    except _Refused as error:
        raise DownloadError(f"{url}: {error}") from error
    except BlockingIOError as error:
        raise DownloadError(f"{url}: another process is downloading it to {folder}: wait until it has") from error
    except ValueError as error:  # of pooch, which has removed the file
        raise DownloadError(
            f"{url}: its sha256 is not {sha256} ({error}): it has changed there or was damaged on its way; "
            "try again, or find out which version is meant"
        ) from error
    except OSError as error:
        raise DownloadError(f"{url}: cannot write to {folder} ({error}): make room or choose another folder") from error


def cache():
    """Folder of the files downloaded."""
    return Path(os.environ.get("XXLIB_CACHE") or pooch.os_cache("xxlib")).expanduser()


def file_name(url):
    """Name of the file at an http(s) URL: a plain one, whatever the URL holds.  Raises DownloadError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DownloadError(f"{url}: not an http or https address")
    last = unquote(parts.path.rstrip("/").rsplit("/", 1)[-1])
    # Names that start with a dot are those of unfinished downloads.
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", last)[-150:].lstrip(".") or "download"


def _download(url, file, _, *, folder, name, max_bytes, progress):
    """Download to `file`, which pooch has made; .<name>.part in the folder is what has arrived so far."""
    os.remove(file)  # a killed process would leave it behind
    lock, part = folder / f".{name}.lock", folder / f".{name}.part"
    with locked(lock):
        for trial in range(1, TRIES + 1):
            try:
                _continue(url, part, name, max_bytes, progress)
                break
            except _Interrupted as error:
                wait = max(error.wait, FIRST_WAIT * 2 ** (trial - 1))
                if trial == TRIES or wait > LONGEST_WAIT:
                    raise _Refused(
                        f"{error} (try {trial} of {TRIES}): check the connection or wait, then try again; "
                        "what has arrived is kept where the server can continue"
                    ) from error
                if progress:
                    tqdm.write(f"{name}: {error}; next try in {wait:.0f} s", file=sys.stderr)
                time.sleep(wait)
        os.replace(part, file)
        _discard(part)
        log.info("downloaded %s to %s", url, folder / name)


def _version_file(part):
    """Beside the bytes of an unfinished download: what the server calls the version they are of."""
    return part.with_suffix(".version")


def _discard(part):
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _start_again(part):
    _discard(part)
    raise _Interrupted("the file changed between two tries")


def _continue(url, part, name, max_bytes, progress):
    """One request for what is missing of a file; raises _Interrupted or _Refused."""
    have = part.stat().st_size if part.exists() else 0
    version = _version_file(part).read_text() if have and _version_file(part).exists() else ""
    headers = {"Accept-Encoding": "identity"}  # ranges and lengths are then those of the file
    if version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416:  # no bytes beyond ours
                _start_again(part)
            _check_status(response)
            start, total = _range(response)
            if start and (start != have or _version(response) != version):
                _start_again(part)
            if "html" in response.headers.get("Content-Type", ""):
                raise _Refused(WEB_PAGE)
            if total is not None and total > max_bytes:
                raise _Refused(_too_large(total, max_bytes))
            if not start:  # from its first byte: a first try, or the file has changed
                _discard(part)
                _version_file(part).write_text(_version(response))
            _receive(response, part, start, total, name, max_bytes, progress)
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
        raise _Refused(f"it leads to what is no http or https address ({error}): look for its new address") from error
    except requests.TooManyRedirects as error:
        raise _Refused(f"it leads in a circle ({error}): look for its new address") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        stalled = "timed out" in str(error)
        raise _Interrupted(f"no byte for {TIMEOUT:g} s" if stalled else f"the connection failed ({error})") from error


def _check_status(response):
    status = f"the server answers {response.status_code} {response.reason}"
    if response.status_code in (408, 429) or response.status_code >= 500:
        try:
            wait = urllib3.Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
        except urllib3.exceptions.InvalidHeader:
            wait = 0.0
        raise _Interrupted(f"{status} and asks to wait {wait:.0f} s" if wait else status, wait)
    if response.status_code not in (200, 206):
        raise _Refused(f"{status}: check the address, and whether it needs a login")


def _range(response):
    """(first byte of what comes, length of the whole file or None where it comes in chunks)."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if not match:
            raise _Refused("the server sends a part of it and does not say which: download it by hand")
        return int(match[1]), int(match[2])
    if "chunked" in response.headers.get("Transfer-Encoding", ""):
        return 0, None
    length = response.headers.get("Content-Length", "")
    if not length.isdigit():
        raise _Refused("the server does not say how long it is, so that a cut would not show: download it by hand")
    return 0, int(length)


def _version(response):
    """What If-Range takes for the version of the file; "" where the server names none."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag


def _receive(response, part, have, total, name, max_bytes, progress):
    """Append the body of a response to a file that has `have` bytes."""
    scale = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with (
        open(part, "ab") as file,
        tqdm(desc=name, total=total, initial=have, disable=not progress, **scale) as bar,
    ):
        for piece in response.raw.stream(PIECE, decode_content=False):
            if have == 0 and piece.lstrip()[:5].lower() in (b"<html", b"<!doc"):
                _discard(part)
                raise _Refused(WEB_PAGE)
            have += len(piece)
            if have > max_bytes:
                _discard(part)
                raise _Refused(_too_large(have, max_bytes))
            file.write(piece)
            bar.update(len(piece))
        file.flush()
        os.fsync(file.fileno())
    if total is not None and have != total:
        raise _Interrupted(f"{have:,} of {total:,} bytes arrived")
    if have == 0:
        raise _Refused("an empty file: check the address")


WEB_PAGE = "a web page where data should be (a login, a notice, a moved file?): open the address in a browser"


def _too_large(size, max_bytes):
    return f"{size:,} bytes or more, the limit is {max_bytes:,}: pass a larger max_bytes if that is right"
