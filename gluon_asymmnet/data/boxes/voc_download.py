"""Download Pascal VOC 2007 and 2012 from its home page, check and unpack them."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.atomic import new_folder
from gluon_asymmnet.utils.download import download, sha1


class Archive(NamedTuple):
    """A tar file with a VOC folder, or a part of it, in ``VOCdevkit``."""

    folder: str  # e.g. "VOC2007"
    url: str
    sha1: str


_HOME = "http://host.robots.ox.ac.uk/pascal/VOC"

# Checksums: GluonCV, scripts/datasets/pascal_voc.py.
ARCHIVES = {
    "2007_trainval": Archive(
        "VOC2007",
        f"{_HOME}/voc2007/VOCtrainval_06-Nov-2007.tar",  # 460 MB
        "34ed68851bce2a36e2a223fa52c661d592c66b3c",
    ),
    "2007_test": Archive(
        "VOC2007",
        f"{_HOME}/voc2007/VOCtest_06-Nov-2007.tar",  # 451 MB
        "41a8d6e12baa5ab18ee7f8f8029b9e11805b4ef1",
    ),
    "2012_trainval": Archive(
        "VOC2012",
        f"{_HOME}/voc2012/VOCtrainval_11-May-2012.tar",  # 2.0 GB
        "4e443f8a2eca6b1dac8a6c57641b67dd40621a49",
    ),
}

_TOP = "VOCdevkit"
_PARTS = ("Annotations", "ImageSets", "JPEGImages")
_MAX_BYTES = 4 << 30  # twice the largest archive
_MAX_DEPTH = 10  # of nested folders; VOC has 4
_COPY_BYTES = 1 << 20


def download_voc(
    root: PathLike,
    archives: Iterable[Archive] = tuple(ARCHIVES.values()),
    *,
    mirror: str | None = None,
    timeout_s: float = 30,
    retries: int = 5,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[Path]:
    """Download the archives and unpack them to ``root/VOC2007`` and ``root/VOC2012``.

    The archives are kept in ``root/downloads`` and reused if their checksums match; an interrupted
    download continues.  The VOC folders appear when all of them are complete.  8.4 GB in total.

    Args:
        archives: some of ``ARCHIVES``; all archives of a folder in the same call.
        mirror:   URL of a folder with files of the same names and checksums, e.g. where the home
            page is not reachable.
        timeout_s, retries, progress: see ``download``.

    Returns: the folders.
    Raises:
        InputError: a VOC folder exists already, or an argument is wrong.
        FormatError: an archive has the wrong checksum, or a path outside its folder.
        RunError: a transfer failed; the same call continues it.
        OSError: the disk is full.
    """
    root, archives = Path(root).expanduser(), list(archives)
    folders = [root / name for name in dict.fromkeys(archive.folder for archive in archives)]
    if not folders:
        raise InputError("no archive is given; expected at least one")
    for folder in folders:
        if folder.exists():
            raise InputError(
                f"{folder} exists already, and is not changed; remove it or choose another root"
            )
    files = [
        download(
            f"{mirror.rstrip('/')}/{_file_name(archive)}" if mirror else archive.url,
            root / "downloads" / _file_name(archive),
            sha1(archive.sha1),
            timeout_s=timeout_s,
            retries=retries,
            max_bytes=_MAX_BYTES,
            what="an archive of VOC",
            progress=progress,
        )
        for archive in archives
    ]
    with ExitStack() as stack:
        scratch = {folder.name: stack.enter_context(new_folder(folder)) for folder in folders}
        for file, archive in zip(files, archives):
            unpack(file, archive.folder, scratch[archive.folder])
    return folders


def _file_name(archive: Archive) -> str:
    return archive.url.rpartition("/")[2]


def unpack(tar: PathLike, folder: str, out: Path) -> None:
    """Unpack ``VOCdevkit/<folder>`` of a tar file into the existing folder ``out``.

    Only folders and plain files are accepted, inside that folder: no links, devices, absolute
    names or ``..``.  Permissions, owners and times are not restored.  Existing files are
    replaced.

    Raises: FormatError if it is damaged, not an uncompressed tar file, or contains anything else.
    """
    top = PurePosixPath(_TOP, folder)
    try:
        with (
            open(tar, "rb") as file,
            tarfile.open(fileobj=_BoundedFile(file), mode="r:") as archive,
        ):
            for member in archive:
                target = out / _inside(member, top)
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _copy(archive, member, target)
    except tarfile.TarError as error:
        raise FormatError(f"{tar}: damaged tar file: {error}") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise FormatError(f"{tar}: one name is a file and a folder: {error.filename}") from None
    except FormatError as error:
        raise FormatError(f"{tar}: {error}") from None
    except (ValueError, OverflowError, EOFError) as error:  # tarfile's own, of damaged headers
        reason = " ".join(str(error)[:200].split())
        raise FormatError(f"{tar}: damaged tar file: {reason}") from None
    for part in _PARTS:
        if not (out / part).is_dir():
            raise FormatError(f"{tar}: it holds no {top / part}")


class _BoundedFile:
    """A file object that limits reads to the rest of the file.

    tarfile requests the size in a header, and Python allocates it before reading.
    """

    def __init__(self, file):
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes."""
        return self._file.read(max(0, min(count, self._size - self.tell())))


def _inside(member: tarfile.TarInfo, top: PurePosixPath) -> PurePosixPath:
    """Return the member's path relative to ``top``; FormatError for an unsafe path."""
    name, shown = PurePosixPath(member.name), repr(member.name[:100])
    if not (member.isdir() or (member.isreg() and not member.issparse())):
        raise FormatError(f"{shown} is a link, a device or a sparse file; expected plain files")
    unsafe = ".." in name.parts or "\0" in member.name or "\\" in member.name
    # A name that no file system accepts would raise OSError later; deep folders are hard to remove.
    longest = max((len(part.encode("utf-8", "surrogateescape")) for part in name.parts), default=0)
    unsafe = unsafe or longest > 255 or len(name.parts) > _MAX_DEPTH
    if unsafe or not (name.is_relative_to(top) or top.is_relative_to(name)):
        raise FormatError(f"{shown} lies outside {top}")
    if not name.is_relative_to(top):
        if not member.isdir():
            raise FormatError(f"{shown} is a file, expected a folder")
        return PurePosixPath()
    return name.relative_to(top)


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    with archive.extractfile(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _COPY_BYTES)
    if target.stat().st_size != member.size:
        raise FormatError(f"{member.name!r} is cut off")
