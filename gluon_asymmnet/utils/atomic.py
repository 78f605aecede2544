"""Write files and folders atomically.

They are written under a hidden name in the same folder (``.<name>.<random>.tmp``), flushed to the
disk and renamed.  After an exception nothing is left; a killed process leaves the hidden file.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Optional

from gluon_asymmnet.errors import InputError


class NewFiles:
    """Context manager for several files that are renamed together when all are complete.

    Args:
        overwrite: replace existing files; otherwise they raise InputError.
    """

    def __init__(self, *, overwrite: bool = False):
        self._overwrite = overwrite
        self._scratch: dict[Path, Path] = {}  # by final path
        self._open: list[tuple[Path, BinaryIO]] = []

    def add(self, path) -> Path:
        """Add a file; return its scratch path, an empty file.  Its folder is made."""
        final = Path(path)
        _make_parent(final)
        self._refuse_existing(final)
        if final in self._scratch:
            raise InputError(f"{final} would be written twice; name different files")
        scratch = hidden_name(final)
        with naming(final, scratch):
            scratch.touch(exist_ok=False)
        self._scratch[final] = scratch
        return scratch

    def open(self, path) -> BinaryIO:
        """Add a file and open it for writing; it is closed with the others."""
        scratch = self.add(path)
        file = scratch.open("wb")
        self._open.append((Path(path), file))
        return file

    def discard(self) -> None:
        """Remove the files that are not renamed yet; may be called twice."""
        for _, file in self._open:
            with contextlib.suppress(OSError):  # closing flushes, and the disk may be full
                file.close()
        for scratch in self._scratch.values():
            scratch.unlink(missing_ok=True)

    def __enter__(self) -> "NewFiles":
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self.discard()

    def _commit(self) -> None:
        for final, file in self._open:
            with naming(final):
                file.close()
        for final, scratch in self._scratch.items():
            with naming(final, scratch):
                flush(scratch)
            self._refuse_existing(final)
        placed = []
        try:
            for final, scratch in self._scratch.items():
                with naming(final, scratch):
                    os.replace(scratch, final)
                placed.append(final)
        except BaseException:
            for final in placed:  # an incomplete set is worse than none
                final.unlink()
            raise
        for folder in {final.parent for final in placed}:
            flush(folder)

    def _refuse_existing(self, final: Path) -> None:
        if os.path.lexists(final) and not self._overwrite:
            raise InputError(
                f"{final} exists and is not overwritten; remove it or allow overwriting"
            )


@contextlib.contextmanager
def new_file(path) -> Iterator[Path]:
    """Yield a scratch path beside ``path``; the file written there replaces ``path`` at the end.

    After an exception nothing is left and ``path`` is as it was.
    """
    final = Path(path)
    _make_parent(final)
    with NewFiles(overwrite=True) as files:
        scratch = files.add(final)
        with naming(final, scratch):
            yield scratch


@contextlib.contextmanager
def new_folder(path) -> Iterator[Path]:
    """Yield a scratch folder beside ``path``; it takes that name at the end.

    ``path`` must not exist.  After an exception nothing is left.
    """
    final = Path(path)
    _make_parent(final)
    if os.path.lexists(final):
        raise InputError(f"{final} exists already; remove it or choose another place")
    scratch = hidden_name(final)
    with naming(final, scratch):
        scratch.mkdir()
        try:
            yield scratch
            for item in (*scratch.rglob("*"), scratch):
                flush(item)
            os.rename(scratch, final)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    flush(final.parent)


def write_text(path, text: str) -> None:
    """Write a text file atomically."""
    with new_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def remove_leftovers(folder, pattern: str) -> None:
    """Remove the scratch files of killed processes for names that match ``pattern``.

    No other process may be writing such a file in ``folder``.
    """
    for path in Path(folder).glob(f".{pattern}.{'[0-9a-f]' * 16}.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def flush(path) -> None:
    """Flush a file or folder to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def naming(final: Path, scratch: Optional[Path] = None) -> Iterator[None]:
    """Make an OSError without a file name, or with one in ``scratch``, name the final path.

    Otherwise "No space left on device" would not say on which.
    """
    try:
        yield
    except OSError as error:
        named = _final_name(error.filename, final, scratch)
        if error.errno is None or named is None:
            raise
        raise OSError(error.errno, error.strerror, str(named)) from error


def _final_name(named, final: Path, scratch: Optional[Path]) -> Optional[Path]:
    if named is None:
        return final
    if scratch is None or not isinstance(named, (str, os.PathLike)):
        return None
    inside = Path(named).is_relative_to(scratch)
    return final / Path(named).relative_to(scratch) if inside else None


def hidden_name(final: Path) -> Path:
    """Return an unused name beside ``final``, so that the rename stays in one file system."""
    return final.with_name(f".{final.name}.{secrets.token_hex(8)}.tmp")


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path.parent} is a file; expected a folder to write to") from None
