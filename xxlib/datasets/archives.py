"""Archives made by others, unpacked into a folder of their own and not beyond it."""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from xxlib.datasets.downloads import DownloadError
from xxlib.datasets.store import sha256
from xxlib.datasets.writing import locked

MAX_RATIO = 200  # bytes unpacked for one packed; JSON and CIF have 5 to 30
FREE = 10_000_000  # bytes that may be unpacked whatever the ratio
PIECE = 1 << 20  # bytes read at once

DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, ValueError)


class _Refused(Exception):
    """What this archive holds is not unpacked."""


def unpack(path, folder, *, max_bytes=20_000_000_000, max_files=200_000, progress=True):
    """The folder with the files of a .zip, .tar, .tar.gz, .tar.bz2, .gz or .bz2 file, which its content tells apart.

    The folder appears when it is complete; one that holds the same archive already is returned as it is.  Archives
    within the archive are not unpacked.

    Raises DownloadError, with nothing left behind: for what is no archive or a damaged or encrypted one, a name that
    leads out of the folder or occurs twice, links and devices, more than max_files files, and files that together have
    more than max_bytes or MAX_RATIO times the bytes of the archive.
    """
    path, folder = Path(path), Path(folder).absolute()
    lock = folder.with_name(f".{folder.name}.lock")
    try:
        digest = sha256(path)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock):
            _unpack(path, folder, digest, max_bytes, max_files, progress)
    except _Refused as error:
        raise DownloadError(f"{path} is not unpacked: {error}") from error
    except BlockingIOError as error:
        raise DownloadError(f"{path} is being unpacked to {folder} by another process: wait until it has") from error
    except DAMAGED as error:
        raise DownloadError(f"{path} is not unpacked: it is damaged ({error}): remove it and get it again") from error
    except OSError as error:
        raise DownloadError(f"{path} is not unpacked: {error}") from error
    return folder


def _unpack(path, folder, digest, max_bytes, max_files, progress):
    note = folder / ".unpacked-sha256"  # of the archive
    if folder.exists():
        if not note.is_file() or note.read_text() != digest:
            raise _Refused(f"{folder} exists and is not this archive unpacked: remove it or choose another folder")
        return
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process
    unfinished.mkdir()
    limit = min(max_bytes, MAX_RATIO * path.stat().st_size + FREE)
    try:
        with tqdm(desc=f"unpack {path.name}", unit="file", disable=not progress) as bar:
            n_bytes = 0
            for n_files, (name, member) in enumerate(_members(path, limit), start=1):
                if n_files > max_files:
                    raise _Refused(f"more than {max_files:,} files, the limit: a bomb, or pass a larger max_files")
                with open(_target(unfinished, name), "xb") as file:
                    while piece := member.read(PIECE):
                        n_bytes += len(piece)
                        if n_bytes > limit:
                            raise _Refused(_too_large(limit))
                        file.write(piece)
                bar.update()
        (unfinished / note.name).write_text(digest)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _members(path, limit):
    """(name, open file) of each regular file in an archive."""
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _zip_members(path)
        return
    opened = gzip.open if magic[:2] == b"\x1f\x8b" else bz2.open if magic[:3] == b"BZh" else open
    with opened(path, "rb") as file:
        is_tar = file.read(512)[257:262] == b"ustar"
        file.seek(0)
        if is_tar:
            yield from _tar_members(_Bounded(file, limit))
        elif opened is not open:
            yield path.stem, file
        else:
            raise _Refused("it is neither zip nor tar nor gz nor bz2: look into it, it may be an error page")


def _zip_members(path):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise _Refused(f"{info.filename!r} is encrypted: unpack it by hand")
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive comes from no Unix
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"{info.filename!r} is a link or a device")
            if not info.is_dir():
                with archive.open(info) as member:
                    yield info.filename, member


def _tar_members(stream):
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            if not (info.isfile() or info.isdir()):
                raise _Refused(f"{info.name!r} is a link or a device")
            if info.isfile():
                yield info.name, archive.extractfile(info)
        # tarfile takes a header that is damaged or cut off for the end, which is a block of zeros.
        stream.seek(archive.offset)
        if stream.read(512) != bytes(512):
            raise EOFError("it has no end")


class _Bounded:
    """A file for tarfile, which without bounds takes any number of headers, and names of any length."""

    def __init__(self, file, limit):
        self.file, self.limit = file, limit
        self.seek, self.tell = file.seek, file.tell

    def read(self, size):
        if size > PIECE:
            raise _Refused(f"a header of {size:,} bytes")
        if self.tell() > self.limit:
            raise _Refused(_too_large(self.limit))
        return self.file.read(size)


def _target(folder, name):
    """Where a file goes that an archive calls by this name; its folder is made."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or ":" in path.parts[0]:
        raise _Refused(f"the name {name!r} leads out of the folder")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise _Refused(f"the name {name!r} occurs twice")
    return target


def _too_large(limit):
    return (
        f"more than {limit:,} bytes are in it, the limit (max_bytes, and {MAX_RATIO} times its own size): "
        "a bomb, or to be unpacked by hand"
    )
