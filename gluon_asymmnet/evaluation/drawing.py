"""Draw detections and captions on images.

Labels are filled with the colour of their class and moved where others are in the way.  OpenCV's
fonts hold ASCII only: other letters become question marks.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from gluon_asymmnet.data.boxes.geometry import Detections
from gluon_asymmnet.data.boxes.voc import DetectionExample
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.utils.atomic import new_file

Colour = tuple[int, int, int]  # RGB

SCORE_THRESHOLD = 0.3  # boxes with a lower score are not drawn
_TRUE, _DETECTED = (0, 200, 0), (255, 60, 0)
_SHORTER_SIDE = 400  # pixels: smaller images are enlarged, so that the text is readable
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAPITAL = 22  # pixels: height of a capital letter of this font at scale 1
# Of classes 0 to 19, then again.  Source: Sasha Trubetskoy, 20 simple distinct colours.
_PALETTE = (
    "e6194b", "3cb44b", "ffe119", "4363d8", "f58231", "911eb4", "42d4f4", "f032e6", "bfef45",
    "fabed4", "469990", "dcbeff", "9a6324", "fffac8", "800000", "aaffc3", "808000", "ffd8b1",
    "000075", "a9a9a9",
)  # fmt: skip


class _Item(NamedTuple):
    """A box to draw, the most important ones first."""

    box: tuple[int, int, int, int]  # corners, pixels
    text: str
    colour: Colour
    below: bool = False  # its label is best placed below


class _Style(NamedTuple):
    """Sizes in pixels, for one picture."""

    line: int  # width of the lines of boxes
    font: float  # OpenCV's scale
    stroke: int  # width of the lines of letters
    margin: int  # around a text


def class_colour(label: int) -> Colour:
    """Return the RGB colour of a class, the same in every picture."""
    return tuple(bytes.fromhex(_PALETTE[label % len(_PALETTE)]))


def draw_example(
    example: DetectionExample,
    found: Detections,
    classes: Sequence[str],
    score_threshold: float = SCORE_THRESHOLD,
) -> np.ndarray:
    """Return the image with true boxes (green) and detections (orange), uint8 RGB."""
    factor = max(1, round(_SHORTER_SIDE / min(example.rgb.shape[:2])))
    canvas = cv2.resize(example.rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    shown = [
        (box, f"{classes[label]} {score:.2f}", _DETECTED, False)
        for box, label, score in zip(found.boxes, found.labels, found.scores)
        if score >= score_threshold
    ]
    true = [(box, classes[label], _TRUE, True) for box, label in zip(example.boxes, example.labels)]
    _draw(canvas, [_Item(_rounded(box * factor), *rest) for box, *rest in (*shown, *true)])
    return canvas


def save_example(
    example: DetectionExample, found: Detections, classes: Sequence[str], path
) -> None:
    """Write the image of ``draw_example`` as JPEG."""
    with new_file(path) as scratch:
        scratch.write_bytes(encode(draw_example(example, found, classes)))


def draw_boxes(
    rgb: np.ndarray, boxes: np.ndarray, texts: Sequence[str], labels: Sequence[int]
) -> np.ndarray:
    """Return a copy of ``(H, W, 3)`` uint8 RGB with labelled boxes.

    Args:
        boxes: corners in pixels, the most important ones first: they get the best places.
        labels: classes, which decide the colours.
    """
    canvas = np.ascontiguousarray(rgb).copy()
    _draw(
        canvas,
        [
            _Item(_rounded(box), text, class_colour(int(label)))
            for box, text, label in zip(boxes, texts, labels)
        ],
    )
    return canvas


def _rounded(box) -> tuple[int, int, int, int]:
    return tuple(round(float(value)) for value in box)


def _draw(canvas: np.ndarray, items: Sequence[_Item]) -> None:
    """Draw all boxes, then all labels, so that no line crosses a text."""
    style = _style(canvas.shape[1], canvas.shape[0])
    for item in reversed(items):  # the important ones on top
        cv2.rectangle(canvas, item.box[:2], item.box[2:], item.colour, style.line)
    taken = np.zeros((len(items), 4), int)
    placed = []
    for number, item in enumerate(items):
        place, scale = _place(item, canvas.shape[1::-1], style, taken[:number])
        taken[number] = place
        placed.append((item, place, scale))
    for item, place, scale in reversed(placed):
        _draw_label(canvas, item, place, scale, style)


def _style(width: int, height: int) -> _Style:
    """Return sizes that suit a picture: letters of 1/60 of its mean side, at least 8 pixels."""
    side = (width + height) / 2
    capital = max(8, side / 60)
    return _Style(
        line=max(1, round(side / 250)), font=capital / _CAPITAL,
        stroke=max(1, round(capital / 10)), margin=max(1, round(capital / 4)),
    )  # fmt: skip


def _place(item: _Item, size, style: _Style, taken) -> tuple[tuple[int, int, int, int], float]:
    """Return the corners of a label, free of ``taken`` if possible, and its font's scale."""
    width, height = size
    text_width, text_height = _text_size(item.text, style.font, style.stroke)
    scale = style.font * min(1, max(width - 2 * style.margin - 2, 1) / max(text_width, 1))
    text_width, text_height = _text_size(item.text, scale, style.stroke)
    wide, high = text_width + 2 * style.margin, text_height + 2 * style.margin
    corners = np.array(list(_candidates(item, wide, high)))
    corners = np.clip(corners, 0, [max(width - wide, 0), max(height - high, 0)])
    places = np.concatenate([corners, corners + np.array([wide, high])], axis=1)
    covered = _common_pixels(places, taken).sum(axis=1)
    return tuple(places[covered.argmin()].tolist()), scale  # of equal ones, the first


def _candidates(item: _Item, wide: int, high: int) -> Iterator[tuple[int, int]]:
    """Yield corners (left, top) of a label, the best first: at the box's corners, then along it."""
    left, top, right, bottom = item.box
    outside = [(left, top - high), (left, bottom)]
    yield from reversed(outside) if item.below else outside
    start = right - wide
    yield from ((left, top), (left, bottom - high), (start, top - high), (start, bottom))
    yield from ((start, top), (start, bottom - high))
    for step in range(1, min(9, max(2, (bottom - top) // high))):
        yield left, top + step * high
        yield start, top + step * high
        yield right, top + (step - 1) * high
    yield left, top - 2 * high
    yield left, bottom + high


def _common_pixels(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how many pixels rectangles ``(n, 4)`` and ``(m, 4)`` have in common, ``(n, m)``."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    return np.prod(np.maximum(np.minimum(a[:, None, 2:], b[None, :, 2:]) - low, 0), axis=-1)


def _draw_label(canvas, item: _Item, place, scale: float, style: _Style) -> None:
    left, top, right, bottom = place
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), item.colour, cv2.FILLED)
    # the baseline of letters without a descender; those with one reach into the margin
    at = (left + style.margin, bottom - style.margin - _descent(scale))
    cv2.putText(
        canvas, _ascii(item.text), at, _FONT, scale, text_colour(item.colour), style.stroke,
        cv2.LINE_AA,
    )  # fmt: skip


def text_colour(background: Colour) -> Colour:
    """Return black or white, whichever contrasts more.  Source: WCAG 2.1, relative luminance."""
    channels = np.array(background) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)


def _text_size(text: str, scale: float, stroke: int) -> tuple[int, int]:
    """Return width and height with descenders, pixels."""
    (width, height), _ = cv2.getTextSize(_ascii(text), _FONT, scale, stroke)
    return width, height + _descent(scale)


def _descent(scale: float) -> int:
    return round(_CAPITAL * scale / 4)


def draw_caption(rgb: np.ndarray, text: str) -> np.ndarray:
    """Return a copy of ``(H, W, 3)`` uint8 RGB with a line of text in a dark band at its top."""
    text = _ascii(text)
    height, width = rgb.shape[:2]
    (text_width, text_height), below = cv2.getTextSize(text, _FONT, 1, 1)
    # letters of a twentieth of the height, smaller if the line does not fit into the width
    scale = min(height / 20 / text_height, width * 0.96 / max(text_width, 1))
    band = max(1, round((text_height + below) * scale * 1.3))
    canvas = np.ascontiguousarray(rgb).copy()
    canvas[:band] //= 4
    origin = (round(width * 0.02), round(text_height * scale * 1.25))
    cv2.putText(
        canvas, text, origin, _FONT, scale, (255, 255, 255), max(1, round(scale)), cv2.LINE_AA
    )
    return canvas


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
