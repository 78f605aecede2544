"""Copy the usable records of a damaged record file, byte for byte.

A magic at a multiple of 4 always starts a piece (see ``recordio``), so after damage the search
continues at the next magic.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gluon_asymmnet.data.class_names import class_names_path, name_lines, read_class_names
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.records.recordio import (
    FIRST,
    LENGTH_BITS,
    MAGIC,
    WHOLE,
    PathLike,
    align_to_4,
    find_magic,
    index_of,
    overlong_piece,
    pieces_at,
    read_index,
    record_id,
    require_file,
    unpack,
)
from gluon_asymmnet.data.records.verify import label_error
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.parallel import Progress, map_in_order, silent, threads_or_default


class Dropped(NamedTuple):
    """A part of the source file that was not copied."""

    offset: int  # byte where it starts
    end: int  # byte after it
    keys: list[int]  # index keys of the records in this part
    reason: str


class RepairReport(NamedTuple):
    """The result of ``repair``."""

    records: int  # number of copied records
    dropped: list[Dropped]
    index: str | None  # error message about the index, or None


class _Segment(NamedTuple):
    """A segment of the file between two positions where a record can start."""

    offset: int
    end: int
    payload: bytes | None  # None: the segment is not a record
    reason: str


def repair(
    rec: PathLike,
    out: PathLike,
    *,
    idx: PathLike | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RepairReport:
    """Copy the usable records of ``rec`` to ``out`` with its ``.idx``; all or nothing.

    Dropped are the records that ``verify`` reports: no magic, a wrong length, a truncated end, an
    invalid header or label, an image that does not decode.  The copies keep order, bytes and keys.
    The index supplies the keys only, so a wrong or missing one loses no record: the key is then the
    id in the record's header or, if that is taken, the next free number.  ``.lst`` and
    ``.classes.txt`` beside ``rec`` are copied too, the former without the dropped records.

    Args:
        out: the ``.rec`` to write.
        idx: the index; default: the ``.idx`` beside ``rec``, if it exists.
        overwrite: replace existing files, but never those of ``rec``.
        progress: called with (bytes done, total) after each record.

    Raises:
        FileNotFoundError: a file is missing.
        InputError: ``out`` is the source, does not end in ``.rec``, or exists.
        FormatError: no record is usable, or the class names are damaged.
    """
    rec, out = Path(rec), Path(out)
    require_file(rec, "record file")
    _check_names(rec, out, idx)
    names = read_class_names(rec)
    classes = len(names) if names else None
    keys, damage = _keys(rec, idx)
    progress = progress or silent
    dropped: list[Dropped] = []
    used = set()

    def checked(part: _Segment) -> _Segment:
        return part._replace(reason=part.reason or _error(part.payload, classes))

    with RecordWriter(out, overwrite=overwrite) as writer, _MappedFile(rec) as data:
        taken, starts = set(keys.values()), sorted(keys)
        for part in map_in_order(checked, _segments(data), threads_or_default(threads)):
            if part.reason:
                _drop(dropped, part, keys, starts)
            else:
                key = _key(part, keys, taken)
                used.add(key)
                writer.write_payload(key, part.payload)
            progress(part.end, data.size)
        if gone := [keys[start] for start in starts if start >= data.size]:
            reason = "the file ends before these records, which the index lists"
            dropped.append(Dropped(data.size, data.size, gone, reason))
        if not used:
            raise FormatError(f"{rec}: nothing in its {data.size} bytes is a usable record")
        if names:
            writer.add_file(class_names_path(out)).write(name_lines(names))
        if (listing := rec.with_suffix(".lst")).is_file():
            writer.add_file(out.with_suffix(".lst")).writelines(_lines_of(listing, used))
    return RepairReport(len(used), dropped, damage)


def _check_names(rec: Path, out: Path, idx: PathLike | None) -> None:
    """Refuse output names that would overwrite the source, also through links."""
    if out.suffix != ".rec":
        raise InputError(f"{out}: expected a name that ends in .rec")
    sources = [rec, class_names_path(rec), *map(rec.with_suffix, (".idx", ".lst"))]
    sources += [Path(idx)] if idx is not None else []
    for new in (out, class_names_path(out), *map(out.with_suffix, (".idx", ".lst"))):
        if any(new.exists() and old.exists() and os.path.samefile(new, old) for old in sources):
            raise InputError(f"{new} belongs to the source, which stays as it is; use another name")


def _keys(rec: Path, idx: PathLike | None) -> tuple[dict[int, int], str | None]:
    """Return {byte offset: key} of the index, and its error message or None."""
    path = index_of(rec, idx)
    if path is None:
        return {}, None
    try:
        keys, offsets = read_index(path, max_lines=rec.stat().st_size // 8)
    except FormatError as error:
        return {}, str(error)
    if len(set(keys)) < len(keys):
        return {}, f"{path}: the index lists a key twice"
    return dict(zip(offsets, keys)), None


class _MappedFile:
    """A memory-mapped file; searching it does not load it whole."""

    def __init__(self, path: Path):
        self.path, self.size = path, path.stat().st_size
        if not self.size:
            raise FormatError(f"{path}: the file is empty; expected records")

    def __enter__(self) -> _MappedFile:
        self.file = open(self.path, "rb")
        self.bytes = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        return self

    def __exit__(self, *_) -> None:
        self.bytes.close()
        self.file.close()

    def next_record(self, start: int) -> int:
        """Return the next position where a record can start, or the end of the file."""
        at = find_magic(self.bytes, start)
        while at >= 0 and self._flag(at) not in (WHOLE, FIRST):
            at = find_magic(self.bytes, at + 4)
        return self.size if at < 0 else at

    def _flag(self, at: int) -> int:
        return int.from_bytes(self.bytes[at + 4 : at + 8], "little") >> LENGTH_BITS


def _segments(data: _MappedFile) -> Iterator[_Segment]:
    """Yield the whole file in order: records and the gaps between them."""
    at = 0
    while at < data.size:
        try:
            pieces = list(pieces_at(data.file.fileno(), at, data.size))
            for start, length in pieces:
                inside = find_magic(data.bytes, start, start + length)
                if inside >= 0:
                    raise FormatError(overlong_piece(start, length, inside))
        except FormatError as error:
            end = data.next_record(at + 4)
            yield _Segment(at, end, None, str(error))
        else:
            end = min(align_to_4(sum(pieces[-1])), data.size)
            payload = MAGIC.join(data.bytes[start : start + length] for start, length in pieces)
            yield _Segment(at, end, payload, "")
        at = end


def _error(payload: bytes, classes: int | None) -> str:
    try:
        label, image = unpack(payload)
        decode(image)
    except FormatError as error:
        return str(error)
    return label_error(label, classes) or ""


def _drop(dropped: list[Dropped], part: _Segment, keys: dict[int, int], starts: list[int]) -> None:
    """Add a dropped segment; a gap after a bad record is merged with it: its length was too short.

    ``starts`` are the offsets of ``keys`` in order.
    """
    first, last = bisect_left(starts, part.offset), bisect_left(starts, part.end)
    found = [keys[start] for start in starts[first:last]]
    if dropped and part.payload is None and dropped[-1].end == part.offset and not found:
        dropped[-1] = dropped[-1]._replace(end=part.end)
    else:
        dropped.append(Dropped(part.offset, part.end, found, part.reason))


def _key(part: _Segment, keys: dict[int, int], taken: set[int]) -> int:
    key = keys.get(part.offset)
    if key is None:
        key = record_id(part.payload)
        if key is None or key in taken:
            key = max(taken, default=-1) + 1
        taken.add(key)
    return key


def _lines_of(listing: Path, keys: set[int]) -> Iterator[bytes]:
    """Yield the lines of a list whose key is in ``keys``."""
    for line in listing.read_bytes().splitlines(keepends=True):
        key = line.split(b"\t", 1)[0]
        if key.isdigit() and len(key) <= 18 and int(key) in keys:
            yield line
