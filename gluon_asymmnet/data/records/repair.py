"""A clean copy of a damaged record file: what can be used is kept, byte for byte.

A magic at a multiple of 4 always starts something (``recordio``), so after damage the search goes
on at the next one.
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
    find_magic,
    index_of,
    padded,
    pieces_at,
    read_index,
    record_id,
    require_file,
    swallowed,
    unpack,
)
from gluon_asymmnet.data.records.verify import label_fault
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.parallel import Progress, ordered, silent, threads_or_default


class Dropped(NamedTuple):
    """A part of the source that was left out."""

    offset: int  # byte where it starts
    end: int  # byte after it
    keys: list[int]  # that the index has there
    reason: str


class RepairReport(NamedTuple):
    """What ``repair`` wrote, and what not."""

    records: int  # kept
    dropped: list[Dropped]
    index: str | None  # what is wrong with the index, or None


class _Part(NamedTuple):
    """A stretch of the file between two places where a record can start."""

    offset: int
    end: int
    payload: bytes | None  # None: it is no record
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

    Left out is what ``records.verify`` calls bad: no magic, a wrong length, an end cut off, a
    header or label that cannot be meant, an image that does not decode.  The copies keep order,
    bytes and keys; the index is used for the keys alone, so a wrong or missing one loses nothing:
    then a key is the id in the record's header, or where that is taken the next free one.
    ``.lst`` and ``.classes.txt`` beside ``rec`` are copied, too, the first without what is dropped.

    Args:
        out: the ``.rec`` to write.
        idx: the index; default the ``.idx`` beside ``rec``, if there is one.
        overwrite: replace existing files, but never those of ``rec``.
        progress: called with (bytes, bytes in all) after each record.

    Raises:
        FileNotFoundError: if a file is missing.
        InputError: if ``out`` is the source, ends in something else, or exists.
        FormatError: if nothing in the file can be used, or the class names are damaged.
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

    def judged(part: _Part) -> _Part:
        return part._replace(reason=part.reason or _fault(part.payload, classes))

    with RecordWriter(out, overwrite=overwrite) as writer, _Mapped(rec) as data:
        taken, starts = set(keys.values()), sorted(keys)
        for part in ordered(judged, _parts(data), threads_or_default(threads)):
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
    """Refuse what would write over the source, also through links."""
    if out.suffix != ".rec":
        raise InputError(f"{out}: expected a name that ends in .rec")
    sources = [rec, class_names_path(rec), *map(rec.with_suffix, (".idx", ".lst"))]
    sources += [Path(idx)] if idx is not None else []
    for new in (out, class_names_path(out), *map(out.with_suffix, (".idx", ".lst"))):
        if any(new.exists() and old.exists() and os.path.samefile(new, old) for old in sources):
            raise InputError(f"{new} belongs to the source, which is left alone; name another file")


def _keys(rec: Path, idx: PathLike | None) -> tuple[dict[int, int], str | None]:
    """Byte offset -> key, as far as the index can be read, and what is wrong with it."""
    path = index_of(rec, idx)
    if path is None:
        return {}, None
    try:
        keys, offsets = read_index(path, most=rec.stat().st_size // 8)
    except FormatError as error:
        return {}, str(error)
    if len(set(keys)) < len(keys):
        return {}, f"{path}: the index lists a key twice"
    return dict(zip(offsets, keys)), None


class _Mapped:
    """A file whose bytes are looked at without reading them all."""

    def __init__(self, path: Path):
        self.path, self.size = path, path.stat().st_size
        if not self.size:
            raise FormatError(f"{path}: the file is empty; expected records")

    def __enter__(self) -> _Mapped:
        self.file = open(self.path, "rb")
        self.bytes = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        return self

    def __exit__(self, *_) -> None:
        self.bytes.close()
        self.file.close()

    def next_record(self, start: int) -> int:
        """Where the next record can start, or the end of the file."""
        at = find_magic(self.bytes, start)
        while at >= 0 and self._flag(at) not in (WHOLE, FIRST):
            at = find_magic(self.bytes, at + 4)
        return self.size if at < 0 else at

    def _flag(self, at: int) -> int:
        return int.from_bytes(self.bytes[at + 4 : at + 8], "little") >> LENGTH_BITS


def _parts(data: _Mapped) -> Iterator[_Part]:
    """The whole file in order, record by record or gap by gap."""
    at = 0
    while at < data.size:
        try:
            pieces = list(pieces_at(data.file.fileno(), at, data.size))
            for start, length in pieces:
                inside = find_magic(data.bytes, start, start + length)
                if inside >= 0:
                    raise FormatError(swallowed(start, length, inside))
        except FormatError as error:
            end = data.next_record(at + 4)
            yield _Part(at, end, None, str(error))
        else:
            end = min(padded(sum(pieces[-1])), data.size)
            payload = MAGIC.join(data.bytes[start : start + length] for start, length in pieces)
            yield _Part(at, end, payload, "")
        at = end


def _fault(payload: bytes, classes: int | None) -> str:
    try:
        label, image = unpack(payload)
        decode(image)
    except FormatError as error:
        return str(error)
    return label_fault(label, classes) or ""


def _drop(dropped: list[Dropped], part: _Part, keys: dict[int, int], starts: list[int]) -> None:
    """Note a part; a gap belongs to the bad record before it, whose length was too short.

    ``starts`` are the offsets of ``keys`` in order.
    """
    first, last = bisect_left(starts, part.offset), bisect_left(starts, part.end)
    found = [keys[start] for start in starts[first:last]]
    if dropped and part.payload is None and dropped[-1].end == part.offset and not found:
        dropped[-1] = dropped[-1]._replace(end=part.end)
    else:
        dropped.append(Dropped(part.offset, part.end, found, part.reason))


def _key(part: _Part, keys: dict[int, int], taken: set[int]) -> int:
    key = keys.get(part.offset)
    if key is None:
        key = record_id(part.payload)
        if key is None or key in taken:
            key = max(taken, default=-1) + 1
        taken.add(key)
    return key


def _lines_of(listing: Path, keys: set[int]) -> Iterator[bytes]:
    """The lines of a list whose key is among ``keys``."""
    for line in listing.read_bytes().splitlines(keepends=True):
        key = line.split(b"\t", 1)[0]
        if key.isdigit() and len(key) <= 18 and int(key) in keys:
            yield line
