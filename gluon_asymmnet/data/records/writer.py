"""Write record files with their index, without MXNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gluon_asymmnet.data.records.recordio import PathLike, frame, pack, require_key
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.atomic import NewFiles, naming


class RecordWriter:
    """Context manager that writes a record file and its index, all or nothing.

    Both files, and those of ``add_file``, appear under their names when the block ends without an
    exception, flushed to disk.  Otherwise no file remains; only a killed process leaves hidden
    ``.tmp`` files.

    Args:
        rec: the record file to write.
        idx: its index; default: the same name with ``.idx``.
        overwrite: replace existing files; without it they are an InputError.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """

    def __init__(self, rec: PathLike, idx: PathLike | None = None, *, overwrite: bool = False):
        self._files = NewFiles(overwrite=overwrite)
        try:
            self._start(Path(rec), idx)
        except BaseException:
            self._files.discard()
            raise

    @classmethod
    def among(cls, files: NewFiles, rec: Path) -> RecordWriter:
        """Create a writer whose files appear together with the others of ``files``."""
        writer = cls.__new__(cls)
        writer._files = files
        writer._start(rec, None)
        return writer

    def _start(self, rec: Path, idx: PathLike | None) -> None:
        self.path = rec
        self._rec = self._files.open(rec)
        self._idx = self._files.open(rec.with_suffix(".idx") if idx is None else Path(idx))
        self._keys: set[int] = set()
        self._at = 0

    def write(self, key: int, label: float | Sequence[float] | np.ndarray, image: bytes) -> None:
        """Append a labelled image.  Raises: InputError if the key was used before."""
        self.write_payload(key, pack(key, label, image))

    def write_payload(self, key: int, payload: bytes) -> None:
        """Append a payload: header and image."""
        require_key(key)
        if key in self._keys:
            raise InputError(f"{self.path}: key {key} was written before; keys must differ")
        framed = frame(payload)
        with naming(self.path):
            self._rec.write(framed)
            self._idx.write(b"%d\t%d\n" % (key, self._at))
        self._keys.add(key)
        self._at += len(framed)

    def add_file(self, path: PathLike) -> BinaryIO:
        """Open another new file, which appears together with the records; the caller writes it."""
        return self._files.open(Path(path))

    def __len__(self) -> int:
        return len(self._keys)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *exception) -> None:
        self._files.__exit__(*exception)
