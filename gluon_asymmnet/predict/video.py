"""Read and write videos with OpenCV's FFmpeg: files, streams, and cameras."""

import contextlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np

from gluon_asymmnet.data.images import MAX_PIXELS
from gluon_asymmnet.errors import FormatError, RunError
from gluon_asymmnet.utils.opencv import set_log_level

TIMEOUT_S = 10  # for a stream to open, and for its next frame
_USUAL_RATE = 25.0  # frames per second, of cameras and streams that give none
_RATES = (0.1, 1000)  # per second; others are not a rate, e.g. the time base of a stream
_MISSING = 0.02  # share of a file's frames that may be missing: some containers only estimate them


class VideoFrame(NamedTuple):
    """A frame, and its place in the video."""

    number: int  # from 0
    seconds: float  # from the start
    rgb: np.ndarray  # (H, W, 3) uint8 RGB


class Video:
    """A video that is read frame by frame, turned as its metadata say; close it at the end.

    Args:
        source: path or URL, or the number of a camera.
        name: for messages.
        every: read each ``every``-th frame.

    Attributes:
        rate: frames per second, before ``every``.
        frames: how many the container says there are; None: unknown.
        passed: how many were read or skipped.

    Raises: FormatError if it cannot be opened.
    """

    def __init__(self, source: Union[str, int], name: str, every: int = 1):
        self._name, self._every = name, every
        self._capture = _open_camera(source) if isinstance(source, int) else _open_file(source)
        if not self._capture.isOpened():
            what = "no such camera, or it is in use" if isinstance(source, int) else (
                "it cannot be opened as a video: it is damaged, empty or of an unknown format"
            )  # fmt: skip
            raise FormatError(f"{name}: {what}")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if _RATES[0] <= rate <= _RATES[1] else _USUAL_RATE
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(count) if 0 < count < 1e9 else None
        self.passed = 0

    def read(self) -> Optional[VideoFrame]:
        """Return the next frame, None at the end.

        Raises: FormatError if the file ends before its last frame, no frame comes in time, or a
            frame is too large.
        """
        begun = time.monotonic()
        ok, bgr = self._capture.read()
        if not ok:
            self._check_end(time.monotonic() - begun)
            return None
        if bgr.shape[0] * bgr.shape[1] > MAX_PIXELS:
            raise FormatError(f"{self._name}: a frame of {bgr.shape[1]} x {bgr.shape[0]} pixels")
        number, place = self.passed, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        known = math.isfinite(place) and 0 <= place < 1e9 and (place > 0 or number == 0)
        self.passed += 1
        for _ in range(self._every - 1):
            self.passed += self._capture.grab()
        seconds = round(place, 3) if known else round(number / self.rate, 3)
        return VideoFrame(number, seconds, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))

    def _check_end(self, waited: float) -> None:
        """Raise FormatError unless this is an end; ``waited`` seconds for the next frame."""
        if waited >= TIMEOUT_S:  # OpenCV gives no reason
            raise FormatError(
                f"{self._name}: no frame came in {TIMEOUT_S:g} s, after {self.passed} frames"
            )
        if self.frames is not None and self.passed < self.frames * (1 - _MISSING) - 1:
            raise FormatError(
                f"{self._name}: it ends after {self.passed} of {self.frames} frames; the file is "
                f"damaged or cut off"
            )

    def close(self) -> None:
        """Release the file or camera."""
        self._capture.release()


class VideoWriter:
    """Write frames as an MP4 (MPEG-4 part 2); frames of other sizes take the first one's.

    An odd side gets one more row or column, which the codec needs.
    """

    def __init__(self, path: Path, rate: float):
        self._path, self._rate = path, rate
        self._size: Optional[tuple[int, int]] = None
        self._writer: Optional[cv2.VideoWriter] = None

    def write(self, rgb: np.ndarray) -> None:
        """Add a frame ``(H, W, 3)`` uint8 RGB.  Raises: RunError if the file cannot be written."""
        if self._writer is None:
            self._size = rgb.shape[1::-1]
            even = tuple(side + side % 2 for side in self._size)
            codec = cv2.VideoWriter_fourcc(*"mp4v")
            with _quiet():
                writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, codec, self._rate, even)
            self._writer = writer
            if not writer.isOpened():
                raise RunError(f"{self._path.name}: OpenCV cannot write a video of {even} pixels")
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        if rgb.shape[1::-1] != self._size:
            bgr = cv2.resize(bgr, self._size, interpolation=cv2.INTER_AREA)
        width, height = self._size
        self._writer.write(
            cv2.copyMakeBorder(bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        )

    def close(self) -> None:
        """Complete the file."""
        if self._writer is not None:
            self._writer.release()


def _open_file(source: str) -> cv2.VideoCapture:
    timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    settings = [value for key in timeouts for value in (key, int(TIMEOUT_S * 1000))]
    with _quiet():
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG, settings)


def _open_camera(number: int) -> cv2.VideoCapture:
    with _quiet():
        return cv2.VideoCapture(number)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from printing: our own error says what is wrong."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    before = set_log_level(0)
    try:
        yield
    finally:
        set_log_level(before)
