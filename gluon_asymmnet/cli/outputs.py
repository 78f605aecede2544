"""What ``predict`` and ``detect`` write: JSON, CSV, pictures and videos with the result on them.

An output is a context manager with ``add(frame, result)``.  Its files take their names at the end;
after an error nothing is left.
"""

import contextlib
import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.predict.inputs import PICTURE, VIDEO, Frame, Input
from gluon_asymmnet.predict.video import VideoWriter
from gluon_asymmnet.utils.atomic import new_file

_PICTURES = (".jpg", ".jpeg", ".png")  # written as they are; others become a JPEG


class TextFile:
    """A text file that is written row by row, so that long videos take no memory."""

    def __init__(self, path: str, newline: Optional[str] = None):
        self._path, self._newline = path, newline
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        scratch = self._stack.enter_context(new_file(self._path))
        self._file = self._stack.enter_context(
            open(scratch, "w", encoding="utf-8", errors="surrogateescape", newline=self._newline)
        )
        self._begin()
        return self

    def __exit__(self, kind, *error):
        if kind is None:
            self._end()
        return self._stack.__exit__(kind, *error)

    def _begin(self) -> None:
        """Write what comes before the rows."""

    def _end(self) -> None:
        """Write what comes after the rows."""


class JsonFile(TextFile):
    """An object with the model, the pictures and frames, and what was skipped."""

    def __init__(self, path: str, predictor, content, skipped: list[Frame]):
        super().__init__(path)
        self._predictor, self._content, self._skipped = predictor, content, skipped
        self._rows = 0

    def _begin(self) -> None:
        one = self._predictor
        head = {"model": str(one.weights), "engine": one.engine, "precision": one.precision}
        self._file.write(f'{json.dumps(head)[:-1]}, "pictures": [')

    def add(self, frame: Frame, result) -> None:
        """Write the entry of a picture or frame."""
        entry = {**_place(frame), **self._content(result)}
        self._file.write(("," if self._rows else "") + "\n" + json.dumps(entry))
        self._rows += 1

    def _end(self) -> None:
        skipped = [{"path": one.input.shown, "reason": one.problem} for one in self._skipped]
        self._file.write(f'\n], "skipped": {json.dumps(skipped)}}}\n')


class CsvFile(TextFile):
    """A table: a row per object or class, and one of a picture or frame that has none."""

    def __init__(self, path: str, columns: tuple[str, ...], content):
        super().__init__(path, newline="")
        self._columns, self._content = columns, content

    def _begin(self) -> None:
        self._writer = csv.DictWriter(
            self._file, ["path", "frame", "seconds", *self._columns], extrasaction="ignore"
        )
        self._writer.writeheader()

    def add(self, frame: Frame, result) -> None:
        """Write the rows of a picture or frame."""
        (rows,) = self._content(result).values()
        for row in rows or [{}]:
            if "box" in row:
                row = {**row, **dict(zip(("xmin", "ymin", "xmax", "ymax"), row["box"]))}
            self._writer.writerow({**_place(frame), **row})


def _place(frame: Frame) -> dict:
    """Return the fields that say where a frame comes from."""
    place = {"path": frame.input.shown}
    if frame.number is not None:
        place.update(frame=frame.number, seconds=frame.seconds)
    return place


class Annotated:
    """The pictures with the result on them, and a video of each video's frames."""

    def __init__(self, folder: str, draw):
        self._folder, self._draw = Path(folder), draw
        self._input: Optional[Input] = None  # whose video is open
        self._video: Optional[VideoWriter] = None
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def add(self, frame: Frame, result) -> None:
        """Write a picture, or add a frame to its video."""
        drawn = self._draw(frame.rgb, result)
        if frame.number is None:
            target = _picture_target(frame.input, self._folder)
            data = encode(drawn, ".png" if target.suffix.lower() == ".png" else ".jpg")
            with new_file(target) as scratch:
                scratch.write_bytes(data)
            return
        if frame.input is not self._input:
            self._stack.close()
            self._input = frame.input
            target = _video_target(frame.input, self._folder)
            self._video = self._stack.enter_context(_new_video(target, frame.rate))
        self._video.write(drawn)


@contextlib.contextmanager
def _new_video(target: Path, rate: float):
    """Yield the writer of a video that takes its name at the end."""
    with new_file(target) as scratch:
        file = scratch.with_name(f"{scratch.name}.mp4")  # FFmpeg takes the format from the suffix
        writer = VideoWriter(file, rate)
        try:
            yield writer
            writer.close()
            file.replace(scratch)
        finally:
            writer.close()
            file.unlink(missing_ok=True)


def check_targets(inputs: Iterable[Input], folder: str) -> None:
    """Raise InputError if ``--annotate`` would write over an input, or two files to one place."""
    inputs = list(inputs)
    sources = {one.source.resolve() for one in inputs if isinstance(one.source, Path)}
    seen: dict[Path, str] = {}
    for one in inputs:
        for target in _targets(one, Path(folder)):
            if target.resolve() in sources:
                raise InputError(
                    f"--annotate {folder} would write over {target}: name another folder"
                )
            if target in seen:
                raise InputError(
                    f"{seen[target]} and {one.shown} would be written to {target}: name their "
                    f"folders instead"
                )
            seen[target] = one.shown


def _targets(one: Input, folder: Path) -> list[Path]:
    """Return where an input may be written: of a URL it is not known yet what it holds."""
    picture, video = _picture_target(one, folder), _video_target(one, folder)
    return {PICTURE: [picture], VIDEO: [video]}.get(one.kind, [picture, video])


def _picture_target(one: Input, folder: Path) -> Path:
    return folder / _with_suffix(one.target, _PICTURES, ".jpg")


def _video_target(one: Input, folder: Path) -> Path:
    return folder / _with_suffix(one.target, (".mp4",), ".mp4")


def _with_suffix(name: Path, kept: tuple[str, ...], suffix: str) -> Path:
    return name if name.suffix.lower() in kept else name.with_name(f"{name.name}{suffix}")
