"""Read MXNet's RecordIO files of labelled images, without MXNet.

A record file ``train.rec`` has an index ``train.idx`` beside it: text, one line
``key <tab> byte offset`` per record.  Both are what ``mx.io.ImageRecordIter`` and
``mx.recordio.MXIndexedRecordIO`` read and ``im2rec`` writes.

Layout of a record, all integers little-endian (dmlc-core, ``include/dmlc/recordio.h``):

    uint32 magic | uint32 flag << 29 | length | payload | zeros to the next multiple of 4

A payload that contains the magic at a multiple of 4 is split there, without the magic itself, into
pieces with the flags FIRST, MIDDLE..., LAST.  So a magic at a multiple of 4 in the file is always
the start of a piece, and a reader can find the next record from any position.

Layout of a payload (``mx.recordio.IRHeader``, struct ``<IfQQ``):

    uint32 n | float32 label | uint64 id | uint64 id2 | n float32 labels, if n > 0 | image bytes
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Union

import numpy as np

from gluon_asymmnet.errors import FormatError, InputError

PathLike = Union[str, "os.PathLike[str]"]

MAGIC = struct.pack("<I", 0xCED7230A)
WHOLE, FIRST, MIDDLE, LAST = range(4)
LENGTH_BITS = 29
MAX_PAYLOAD = (1 << LENGTH_BITS) - 1  # bytes; also the limit of MXNet's writer

_MAX_KEY = 10**18 - 1  # the largest number of 18 digits; fits a signed 64-bit integer

_FRAME = struct.Struct("<4sI")
_HEADER = struct.Struct("<IfQQ")


def frame(payload: bytes) -> bytes:
    """Return the bytes that store ``payload`` in the file."""
    if len(payload) > MAX_PAYLOAD:
        raise InputError(
            f"a record of {len(payload)} bytes does not fit: the format holds up to {MAX_PAYLOAD}"
        )
    pieces, start = [], 0
    at = payload.find(MAGIC)
    while at >= 0:
        if at % 4 == 0:
            pieces.append(payload[start:at])
            start = at + 4
        at = payload.find(MAGIC, at + 1)
    pieces.append(payload[start:])
    flags = [WHOLE] if len(pieces) == 1 else [FIRST] + [MIDDLE] * (len(pieces) - 2) + [LAST]
    return b"".join(
        _FRAME.pack(MAGIC, flag << LENGTH_BITS | len(piece)) + piece + bytes(-len(piece) % 4)
        for flag, piece in zip(flags, pieces)
    )


def pieces_at(fd: int, at: int, limit: int) -> Iterator[tuple[int, int]]:
    """Yield ``(start, length)`` of each piece of the record at byte ``at``.

    Only the frames are read, and no piece may extend beyond byte ``limit``, so a damaged length
    costs no memory.

    Raises: FormatError.
    """
    allowed = (WHOLE, FIRST)
    while True:
        head = os.pread(fd, 8, at) if at + 8 <= limit else b""
        if len(head) < 8:
            raise FormatError(f"the record is cut off: 8 bytes are expected at byte {at}")
        magic, word = _FRAME.unpack(head)
        if magic != MAGIC:
            raise FormatError(
                f"no record starts at byte {at}: found {magic.hex()}, expected {MAGIC.hex()}"
            )
        flag, length = word >> LENGTH_BITS, word & MAX_PAYLOAD
        if flag not in allowed:
            raise FormatError(
                f"the piece at byte {at} has flag {flag}, expected {allowed[0]} or {allowed[1]}"
            )
        if at + 8 + length > limit:
            raise FormatError(
                f"the piece at byte {at} claims {length} bytes, but only {limit - at - 8} follow"
            )
        yield at + 8, length
        at = align_to_4(at + 8 + length)
        if flag in (WHOLE, LAST):
            return
        allowed = (MIDDLE, LAST)


def find_magic(data, start: int = 0, end: int | None = None) -> int:
    """Return the position of the first magic at a multiple of 4, or -1; also in a mapped file."""
    end = len(data) if end is None else end
    at = data.find(MAGIC, start, end)
    while at >= 0 and at % 4:
        at = data.find(MAGIC, at + 1, end)
    return at


def overlong_piece(start: int, length: int, inside: int) -> str:
    """Return the error message for a piece that contains another one's start at ``inside``."""
    return (
        f"the piece at byte {start - 8} claims {length} bytes, but the next one starts at byte "
        f"{inside}"
    )


def align_to_4(at: int) -> int:
    """Return the next multiple of 4 from ``at`` on."""
    return (at + 3) & ~3


def _record_end(fd: int, at: int, limit: int) -> int:
    """Return the byte after the record at ``at``."""
    for start, length in pieces_at(fd, at, limit):
        end = align_to_4(start + length)
    if end > limit:
        raise FormatError(f"the record ends at byte {end}, but the data end at byte {limit}")
    return end


def _take(fd: int, size: int, at: int) -> bytes:
    data = os.pread(fd, size, at)
    if len(data) != size:
        raise FormatError(f"{size} bytes are expected at byte {at}, but only {len(data)} follow")
    return data


def pack(key: int, label: float | Sequence[float] | np.ndarray, image: bytes) -> bytes:
    """Return the payload of one labelled image; several labels as MXNet does (n > 0)."""
    require_key(key)
    if np.ndim(label) == 0:
        return _HEADER.pack(0, label, key, 0) + image
    labels = np.asarray(label, "<f4")
    return _HEADER.pack(labels.size, 0.0, key, 0) + labels.tobytes() + image


def require_key(key: int) -> None:
    """Raise InputError if an index cannot hold ``key``."""
    if not 0 <= key <= _MAX_KEY:
        raise InputError(f"a key must be 0 to {_MAX_KEY}, got {key}")


def unpack(payload: bytes) -> tuple[float | np.ndarray, bytes]:
    """Return the label (or ``(n,)`` float32 labels) and the image of a payload.

    Raises: FormatError.
    """
    label, start = _unpack_label(payload, len(payload))
    return label, payload[start:]


def record_id(payload: bytes) -> int | None:
    """Return the id in a payload's header, which im2rec sets to the key; None if not valid."""
    key = _HEADER.unpack_from(payload)[2]
    return key if key <= _MAX_KEY else None


def _unpack_label(head: bytes, size: int) -> tuple[float | np.ndarray, int]:
    """Return the label from the first bytes of a payload, and the position of its image."""
    if size < _HEADER.size:
        raise FormatError(
            f"the record holds {size} bytes, fewer than the {_HEADER.size} of an image header"
        )
    count, label, _, _ = _HEADER.unpack_from(head)
    start = _HEADER.size + 4 * count
    if start > size:
        raise FormatError(f"the header announces {count} labels, but the record holds {size} bytes")
    if count == 0:
        return label, start
    return np.frombuffer(head, "<f4", count, _HEADER.size).astype(np.float32), start


class Record(NamedTuple):
    """One labelled image."""

    key: int
    label: float | np.ndarray  # (n,) float32 if the record has several
    image: bytes  # encoded, JPEG or PNG


class RecordFile:
    """Random access to a record file, by position in its index.

    Several threads may read at once (``os.pread``, hence POSIX only); a pickled copy opens the
    file again.

    Args:
        rec:   the record file.
        idx:   its index.  Default: the ``.idx`` beside it; without one the file is scanned, and the
               records are numbered 0, 1, ... like MXNet's ``rec2idx.py`` does.
        check: raise FormatError if index and file do not match.  False: keep the message in
               ``fault``; the readable records can be read.
        sample: check some records on opening; False: damage is found when a record is read.

    Attributes:
        path:  the record file.
        size:  bytes of the file.
        keys:  ``(len,)`` int64, the keys in index order.
        fault: error message about the file as a whole, or None.

    Raises:
        FileNotFoundError: a given file does not exist.
        FormatError: the file is empty, truncated or no record file, or the index belongs to another
            file.  Opening checks only ``SAMPLE`` records spread over the file, because each may
            cost a disk seek; every read checks its record again.
    """

    SAMPLE = 256  # 3 s at a disk seek of 10 ms each

    def __init__(
        self, rec: PathLike, idx: PathLike | None = None, *, check: bool = True, sample: bool = True
    ):
        self.path = Path(rec)
        idx = index_of(self.path, idx)
        self._open()
        try:
            self._load(idx)
            if self.fault is None and (reason := self._mismatch(sample)):
                self.fault = f"{self.path}: {reason}" + (f" (index {idx})" if idx else "")
            if check and self.fault:
                raise FormatError(self.fault)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        require_file(self.path, "record file")
        self._fd = os.open(self.path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self._fd)
        self.size = os.fstat(self._fd).st_size

    def _load(self, idx: Path | None) -> None:
        """Set ``keys``, ``fault``, and start and end of each record."""
        self.fault, stop = None, self.size
        if self.size == 0:
            self.fault, idx = f"{self.path}: the file is empty; expected records", None
        if idx is not None:
            try:
                keys, offsets = read_index(idx, max_lines=self.size // 8)
            except FormatError as error:
                self.fault, idx = str(error), None
        if idx is None:
            keys, offsets, stop, damage = self._scan()
            self.fault = self.fault or damage
        self.keys, self._offsets = _int64(keys), _int64(offsets)
        self._ends = _ends(self._offsets, stop)

    def _scan(self) -> tuple[range, list[int], int, str | None]:
        """Scan the records up to the end or the first damage.

        Returns: keys and offsets of the records, the byte after the last one, and the damage.
        """
        offsets, at, damage = [], 0, None
        while at < self.size and damage is None:
            try:
                end = _record_end(self._fd, at, self.size)
            except FormatError as error:
                damage = f"{self.path}: record {len(offsets)} at byte {at}: {error}"
            else:
                offsets.append(at)
                at = end
        return range(len(offsets)), offsets, at, damage

    def _mismatch(self, sample: bool) -> str | None:
        """Return how index and file contradict each other, or None."""
        offsets, size = self._offsets, self.size
        if len(offsets) == 0:
            return "the index lists no record"
        if len(np.unique(self.keys)) < len(self.keys):
            return "the index lists a key twice"
        for i in np.flatnonzero((offsets >= size) | (offsets % 4 != 0))[:1]:
            return (
                f"the index puts record {i} (key {self.keys[i]}) at byte {offsets[i]}; expected "
                f"a multiple of 4 below the file's {size} bytes"
            )
        order = np.argsort(offsets, kind="stable")
        for i in order[1:][np.diff(offsets[order]) == 0][:1]:
            return f"the index lists the record at byte {offsets[i]} twice"
        if offsets[order[0]] != 0:
            return f"the index starts at byte {offsets[order[0]]}, expected 0"
        spread = np.unique(np.linspace(0, len(order) - 1, self.SAMPLE).astype(int))
        for i in order[spread] if sample else ():
            try:
                self._extent(i)
            except FormatError as error:
                return f"{self.where(i)}: {error}"
        return None

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, i: int) -> Record:
        """Return the record at position ``i`` of the index, ``0 <= i < len``.

        Raises: FormatError if it is damaged; IndexError; ValueError if the file is closed.
        """
        with self.locating(i):
            return self.read_bare(i)

    def read_bare(self, i: int) -> Record:
        """Like ``read``, but a FormatError gives only the reason, not the position."""
        label, image = unpack(self._join(self._extent(i)))
        return Record(int(self.keys[i]), label, image)

    def label(self, i: int) -> float | np.ndarray:
        """Return the label of record ``i`` without reading its image.  Raises like ``read``."""
        with self.locating(i):
            pieces = self._extent(i)
            size = sum(length for _, length in pieces) + 4 * (len(pieces) - 1)
            head = self._head(pieces, _HEADER.size)
            if len(head) == _HEADER.size:
                head = self._head(pieces, _HEADER.size + 4 * _HEADER.unpack(head)[0])
            return _unpack_label(head, size)[0]

    def payload(self, i: int) -> bytes:
        """Return header and image of record ``i``, like MXNet's reader.  Raises like ``read``.

        Two disk reads: the frame, whose length is checked, and the payload.
        """
        with self.locating(i):
            return self._join(self._extent(i))

    @contextlib.contextmanager
    def locating(self, i: int) -> Iterator[None]:
        """Prefix FormatErrors with file, record and byte."""
        try:
            yield
        except FormatError as error:
            raise FormatError(f"{self.path}: {self.where(i)}: {error}") from None

    def _extent(self, i: int) -> list[tuple[int, int]]:
        """Return the pieces of record ``i``, which must end where the next record starts."""
        if not 0 <= i < len(self):
            raise IndexError(f"{self.path}: no record {i}; there are {len(self)}")
        if not self._close.alive:
            raise ValueError(f"{self.path} is closed")
        end = int(self._ends[i])
        pieces = list(pieces_at(self._fd, int(self._offsets[i]), end))
        last = align_to_4(sum(pieces[-1]))
        if last != end:
            raise FormatError(
                f"the record ends at byte {last}, expected {end}, where the next one or the end of "
                f"the file is; the file is damaged or the index belongs to another one"
            )
        return pieces

    def _join(self, pieces: list[tuple[int, int]]) -> bytes:
        parts = [_take(self._fd, length, start) for start, length in pieces]
        for part, (start, length) in zip(parts, pieces):
            inside = find_magic(part)
            if inside >= 0:
                raise FormatError(overlong_piece(start, length, start + inside))
        return MAGIC.join(parts)

    def _head(self, pieces: list[tuple[int, int]], size: int) -> bytes:
        """Return the first ``size`` bytes of a payload, or all if it is shorter."""
        start, length = pieces[0]
        if length >= size or len(pieces) == 1:
            return _take(self._fd, min(size, length), start)
        return self._join(pieces)[:size]

    def where(self, i: int) -> str:
        """Return index position, key and byte of record ``i``, for a message."""
        return f"record {i} (key {self.keys[i]}) at byte {self._offsets[i]}"

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        self._close()

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k not in ("_fd", "_close")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._open()
        if self.size != state["size"]:
            self.close()
            raise FormatError(
                f"{self.path}: the file has {self.size} bytes, expected {state['size']}; "
                f"it was changed after it was opened"
            )


def _int64(values: Iterable[int]) -> np.ndarray:
    return np.fromiter(values, np.int64)


def require_file(path: Path, what: str) -> None:
    """Raise FileNotFoundError or FormatError unless ``path`` is a file; ``what`` is its kind."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such {what}")
    if not path.is_file():
        raise FormatError(f"{path}: expected a {what}, found a folder or a device")


def index_of(rec: Path, idx: PathLike | None) -> Path | None:
    """Return ``idx``, or the index beside ``rec``, or None.  Raises like ``require_file``."""
    beside = rec.with_suffix(".idx")
    if idx is not None:
        if not Path(idx).exists() and beside.is_file():
            raise FileNotFoundError(f"{idx}: no such index file; there is {beside}")
        require_file(Path(idx), "index file")
        return Path(idx)
    return beside if beside.is_file() and beside != rec else None


def read_index(idx: Path, max_lines: int) -> tuple[list[int], list[int]]:
    """Return keys and offsets of an index.

    Raises: FormatError for a malformed line, or more than ``max_lines``: a wrong file must not fill
        the memory.
    """
    keys, offsets = [], []
    with open(idx, "rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(64), b""), 1):
            found = re.fullmatch(rb"(\d{1,18})\t(\d{1,18})\r?\n?", line)
            if not found:
                raise FormatError(
                    f"{idx}: line {number} is {line[:40]!r}; expected 'key<tab>byte offset'"
                )
            if number > max_lines:
                raise FormatError(
                    f"{idx}: more than {max_lines} lines, but the file has no room for so many "
                    f"records; expected the index of this file"
                )
            keys.append(int(found[1]))
            offsets.append(int(found[2]))
    return keys, offsets


def _ends(offsets: np.ndarray, stop: int) -> np.ndarray:
    """Return for each record the byte where the next one starts; ``stop`` for the last."""
    order = np.argsort(offsets, kind="stable")
    ends = np.empty_like(offsets)
    ends[order] = np.append(offsets[order][1:], stop)[: len(offsets)]
    return np.minimum(ends, stop)
