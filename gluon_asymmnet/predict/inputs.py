"""What ``predict`` and ``detect`` read: files, folders, patterns, URLs, cameras, standard input.

Pictures are read as everywhere (``read_image``).  They and the frames of videos are decoded ahead
on threads; frames come in the order of the inputs.
"""

import functools
import glob
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np

from gluon_asymmnet.data.image_files import is_hidden, is_image_file, is_video_file
from gluon_asymmnet.data.image_headers import starts_like_a_picture
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.errors import FormatError, InputError, RunError, reason_of
from gluon_asymmnet.predict.images import find_pictures, read_image
from gluon_asymmnet.predict.video import Video
from gluon_asymmnet.predict.web import MAX_BYTES, fetch_picture, file_name, is_url, without_password
from gluon_asymmnet.utils.parallel import map_in_order
from gluon_asymmnet.utils.threads import available

PICTURE, VIDEO, CAMERA, URL, STDIN = "picture", "video", "camera", "url", "stdin"
AHEAD = 4  # pictures or frames that are decoded and not yet used
_MAX_STDIN = 1 << 32  # bytes of a video on standard input


class Input(NamedTuple):
    """One picture, video, URL, camera, or standard input."""

    kind: str
    source: Union[Path, str, int]
    shown: str  # in rows and results
    target: Path  # relative path for what is made of it


class Frame(NamedTuple):
    """A picture, a frame of a video, or the reason why there is none."""

    input: Input
    rgb: Optional[np.ndarray]  # (H, W, 3) uint8 RGB; None with a problem
    problem: str = ""
    number: Optional[int] = None  # in the video, from 0; None: a picture
    seconds: Optional[float] = None  # from the video's start
    rate: float = 0.0  # frames per second that are read of the video
    live: bool = False  # from a camera or an endless stream
    ready: Optional[np.ndarray] = None  # made of the picture by ``prepare``, in the place of rgb


def find_inputs(arguments: Iterable[str]) -> list[Input]:
    """List what arguments of the command line name, in their order.

    An argument is a file, a folder (its pictures and videos, sorted by path), a pattern such as
    ``photos/**/*.jpg`` (sorted), a URL, the number of a camera, or ``-``.  An existing file comes
    first: a file called ``0`` is not a camera.

    Raises: FileNotFoundError for a missing path, InputError for a folder without pictures.
    """
    found = []
    for given in map(str, arguments):
        if given == "-":
            found.append(Input(STDIN, given, given, Path("stdin")))
        elif is_url(given):
            found.append(Input(URL, given, without_password(given), file_name(given)))
        elif Path(given).exists():
            found += _inside(Path(given)) if Path(given).is_dir() else [_file(Path(given))]
        elif given.isascii() and given.isdigit() and len(given) < 4:
            camera = f"camera {int(given)}"
            found.append(Input(CAMERA, int(given), camera, Path(camera.replace(" ", ""))))
        elif glob.has_magic(given):
            found += _matches(given)
        else:
            raise FileNotFoundError(f"{given}: no such file or folder")
    if sum(one.kind == STDIN for one in found) > 1:
        raise InputError("standard input (-) is given twice; it can be read once")
    return found


def _file(path: Path, target: Optional[Path] = None) -> Input:
    kind = VIDEO if is_video_file(path.name) else PICTURE
    return Input(kind, path, str(path), target or Path(path.name))


def _inside(folder: Path) -> list[Input]:
    root = Path(folder.resolve().name)
    return [
        _file(path, root / path.relative_to(folder)) for path in find_pictures(folder, _is_readable)
    ]


def _matches(pattern: str) -> list[Input]:
    paths = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in paths if _is_readable(path.name) and path.is_file()]
    if not files:
        raise FileNotFoundError(f"{pattern}: no picture or video has such a name")
    common = Path(os.path.commonpath([path.parent for path in files]))
    return [_file(path, path.relative_to(common)) for path in files]


def _is_readable(name: str) -> bool:
    return not is_hidden(name) and (is_image_file(name) or is_video_file(name))


class Reading(NamedTuple):
    """How pictures and frames are read."""

    every: int = 1  # use each ``every``-th frame of videos, the first one included
    prepare: Optional[Callable] = None  # rgb -> array; called on the threads that decode
    shorter: int = 0  # pixels of the shorter side that are enough, as in ``read_image``
    ahead: int = AHEAD  # pictures or frames that are decoded, prepared, and not yet used
    threads: int = 0  # that decode pictures; 0: one per processor
    say: Callable[[str], None] = lambda line: None  # called where a stream ends by itself

    def frame(self, one: Input, rgb: np.ndarray, *place) -> Frame:
        """Return a frame with its picture or with what ``prepare`` makes of it."""
        found = Frame(one, rgb, "", *place)
        return found._replace(rgb=None, ready=self.prepare(rgb)) if self.prepare else found


def read_frames(inputs: Sequence[Input], how: Reading = Reading()) -> Iterator[Frame]:
    """Yield pictures and frames in order; what cannot be read has a ``problem``."""
    for is_picture, group in itertools.groupby(inputs, lambda one: one.kind == PICTURE):
        if is_picture:
            read = functools.partial(_read_picture, how=how)
            yield from map_in_order(read, group, how.threads or available(), ahead=how.ahead)
            continue
        for one in group:
            try:
                yield from _READERS[one.kind](one, how)
            except (FormatError, RunError, OSError) as error:
                yield Frame(one, None, _problem(one, error))


def _read_picture(one: Input, how: Reading) -> Frame:
    try:
        return how.frame(one, read_image(one.source, how.shorter))
    except (FormatError, OSError) as error:
        return Frame(one, None, _problem(one, error))


def _problem(one: Input, error: Exception) -> str:
    text = reason_of(error)
    return text if text.startswith(one.shown) else f"{one.shown}: {text}"


def _read_video(one: Input, how: Reading, source=None) -> Iterator[Frame]:
    """Yield the frames of a video; its thread decodes ahead, but not of a camera."""
    video = Video(one.source if source is None else source, one.shown, how.every)
    live = one.kind == CAMERA or (one.kind == URL and video.frames is None)

    def read(_) -> Optional[Frame]:
        found = video.read()
        if found is None:
            return None
        place = found.number, found.seconds, video.rate / how.every, live
        return how.frame(one, found.rgb, *place)

    try:
        # one thread: the calls of ``read`` follow each other
        frames = map_in_order(read, itertools.count(), 1, ahead=1 if live else how.ahead)
        yield from itertools.takewhile(lambda frame: frame is not None, frames)
        if live:  # OpenCV does not tell the end of a stream from the death of its server
            how.say(f"{one.shown}: the stream ended after {video.passed} frames")
    finally:
        frames.close()
        video.close()


def _read_file(one: Input, how: Reading) -> Iterator[Frame]:
    return _read_video(one, how, str(one.source))


def _read_url(one: Input, how: Reading) -> Iterator[Frame]:
    data = fetch_picture(one.source)
    if data is None:
        yield from _read_video(one, how)
    else:
        yield how.frame(one, decode(data, how.shorter))


def _read_stdin(one: Input, how: Reading) -> Iterator[Frame]:
    stream = sys.stdin.buffer
    head = stream.read(16)
    if not head:
        raise FormatError("nothing came; expected a picture or a video")
    if starts_like_a_picture(head):
        data = head + stream.read(MAX_BYTES + 1 - len(head))
        if len(data) > MAX_BYTES:
            raise FormatError(f"the picture has more than {MAX_BYTES} bytes")
        yield how.frame(one, decode(data, how.shorter))
        return
    with tempfile.NamedTemporaryFile(prefix="asymmnet-") as file:  # most formats need seeking
        file.write(head)
        shutil.copyfileobj(_Bounded(stream, _MAX_STDIN), file)
        file.flush()
        yield from _read_video(one, how, file.name)


class _Bounded:
    """A file that refuses to give more than so many bytes."""

    def __init__(self, stream, most: int):
        self._stream, self._left = stream, most

    def read(self, size: int) -> bytes:
        part = self._stream.read(size)
        self._left -= len(part)
        if self._left < 0:
            raise FormatError("the video is too large for standard input; give it as a file")
        return part


_READERS = {VIDEO: _read_file, CAMERA: _read_video, URL: _read_url, STDIN: _read_stdin}


def count_frames(inputs: Sequence[Input], every: int) -> Optional[int]:
    """Return how many pictures and frames there will be, for a progress bar; None: unknown."""
    total = 0
    for one in inputs:
        if one.kind == PICTURE:
            total += 1
        elif one.kind == VIDEO:
            try:
                video = Video(str(one.source), one.shown)
            except FormatError:
                continue
            video.close()
            if video.frames is None:
                return None
            total += -(-video.frames // every)
        else:
            return None
    return total
