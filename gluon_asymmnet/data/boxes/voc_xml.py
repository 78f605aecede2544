"""One annotation of Pascal VOC: the XML as it stands on the disk, read without trust, and written.

The devkit counts pixels from 1 and a box includes its last row and column.  Here they count from
0, as in GluonCV: 1 is subtracted from all four corners, and the last ones stay included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape

import numpy as np

from gluon_asymmnet.errors import FormatError, InputError

MAX_BYTES = 1 << 20  # of one annotation; VOC spends some 500 on an object

# What can be wrong with one object.  The first three leave it out, the others repair it.
BROKEN, UNKNOWN, BAD_BOX, CLIPPED, RENAMED = "broken", "unknown", "bad box", "clipped", "renamed"

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)
_MAX_NAME_BYTES = 250  # a file system takes 255, and an extension follows
_MAX_SIDE = 1 << 24  # pixels: the next odd one is no float32
# Control characters, lone surrogates and two more cannot stand in XML 1.0, not even escaped.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Issue(NamedTuple):
    """What is wrong with one object."""

    kind: str  # one of the five above
    message: str  # one line: which object, what is wrong, what would be right
    name: str  # the class as the file spells it; "" if it does not say


class Parsed(NamedTuple):
    """What one annotation says, without the objects that cannot be used."""

    size: tuple[int, int]  # (width, height), pixels
    filename: str | None  # of the picture; a bare name, if given at all
    boxes: np.ndarray  # (n, 4) float32, corners (xmin, ymin, xmax, ymax), pixels from 0
    labels: np.ndarray  # (n,) int64, positions in the class names
    difficult: np.ndarray  # (n,) bool
    issues: list[Issue]


class _Unusable(Exception):  # noqa: N818 - it never leaves this module
    """An object that has to be left out; the kind and the reason."""


class ClassNames(Sequence):
    """Class names in label order, found by name in any case.

    Raises: InputError if there are none, or two differ in nothing but case and outer blanks.
    """

    def __init__(self, names: Iterable[str]):
        self._names = tuple(names)
        self._positions: dict[str, int] = {}
        for i, name in enumerate(self._names):
            first = self._positions.setdefault(_folded(name), i)
            if first != i:
                raise InputError(
                    f"class {i} ({name!r}) is class {first} ({self._names[first]!r}) again: names "
                    f"are compared without regard to case"
                )
        if not self._names or "" in self._positions:
            raise InputError(f"expected class names, at least one and none empty: {self._names}")

    def find(self, name: str) -> int | None:
        """Return the label of a class, or None."""
        return self._positions.get(_folded(name))

    def __getitem__(self, i):
        return self._names[i]

    def __len__(self) -> int:
        return len(self._names)


def _folded(name: str) -> str:
    return name.strip().casefold()


def parse_annotation(data: bytes, classes: ClassNames) -> Parsed:
    """Read one annotation; ``classes`` gives the labels.

    A missing ``<difficult>`` is 0.  Boxes that reach beyond the image are cut at its border.

    Raises: FormatError if nothing in it can be used: no XML, larger than ``MAX_BYTES``, with a
        document type (which is where XML's entity bombs are), without a size.  What is wrong
        with one object is an ``Issue`` instead, so that one reading finds everything.
    """
    root = _tree(data)
    if root.tag != "annotation":
        raise FormatError(f"the outermost element is {_shown(root.tag)}, expected 'annotation'")
    size = _size(root)
    filename = _filename(root)
    objects, issues = [], []
    for number, element in enumerate(root.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        where = f"object {number} ({_shown(name)})"
        try:
            label, box, difficult, repairs = _object(element, name, classes, size)
        except _Unusable as reason:
            kind, message = reason.args
            issues.append(Issue(kind, f"{where}: {message}", name))
        else:
            objects.append((label, box, difficult))
            issues += [Issue(kind, f"{where}: {message}", name) for kind, message in repairs]
    labels, boxes, difficult = zip(*objects) if objects else ((), (), ())
    return Parsed(
        size,
        filename,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(difficult, bool),
        issues,
    )


def _tree(data: bytes) -> Element:
    """The outermost element.  Entities are not expanded but refused, with all that declares them.

    An exception in a handler stops the parser at once (``XML_StopParser``).
    """
    if len(data) > MAX_BYTES:
        raise FormatError(f"{len(data)} bytes; an annotation has at most {MAX_BYTES}")
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse_entities
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise FormatError(f"broken XML: {error}") from None
    except FormatError:
        raise
    except (ValueError, LookupError) as error:  # an encoding that expat leaves to Python
        raise FormatError(f"broken XML: {_shown(str(error))}") from None
    return builder.close()


def _refuse_entities(*_declaration) -> None:
    raise FormatError("the XML declares a document type or an entity, which is not accepted")


def _size(root: Element) -> tuple[int, int]:
    sides = []
    for side in ("width", "height"):
        text = root.findtext(f"size/{side}")
        if text is None:
            raise FormatError(f"there is no <size> with a <{side}>")
        value = _number(text)
        if value is None or value != int(value) or not 0 < value < _MAX_SIDE:
            raise FormatError(f"{side} is {_shown(text)}, expected a whole number of pixels, not 0")
        sides.append(int(value))
    return sides[0], sides[1]


def _filename(root: Element) -> str | None:
    name = (root.findtext("filename") or "").strip()
    if name and not is_bare_name(name):
        raise FormatError(f"filename is {_shown(name)}, expected a bare name without a folder")
    return name or None


def is_bare_name(name: str) -> bool:
    """Whether ``name`` can only mean a file in the folder it is looked up in."""
    length = len(name.encode("utf-8", "surrogatepass"))
    return (
        not re.search(r"[/\\\0\r\n]", name)
        and name not in ("", ".", "..")
        and length <= _MAX_NAME_BYTES
    )


def _object(element: Element, name: str, classes: ClassNames, size: tuple[int, int]):
    """``(label, box, difficult, repairs)`` of one object.  Raises _Unusable."""
    if not name:
        raise _Unusable(BROKEN, "it has no <name>")
    difficult = _difficult(element)
    box = _corners(element)
    label = classes.find(name)
    if label is None:
        raise _Unusable(UNKNOWN, f"unknown class; expected one of {_listed(classes)}")
    inside = np.clip(box, 0, np.array([*size, *size], float) - 1)
    (left, top, right, bottom), (width, height) = box + 1, size
    spelled = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
    if left >= right or top >= bottom:
        raise _Unusable(BAD_BOX, f"the box {spelled} is empty or inverted: min must be below max")
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise _Unusable(BAD_BOX, f"the box {spelled} lies outside the {width} x {height} image")
    repairs = []
    if classes[label].strip() != name:
        repairs.append((RENAMED, f"read as class {classes[label]!r}"))
    if not np.array_equal(inside, box):
        repairs.append(
            (CLIPPED, f"the box {spelled} reaches beyond 1 to {width} x 1 to {height}; it is cut")
        )
    return label, inside, difficult, repairs


def _difficult(element: Element) -> bool:
    text = (element.findtext("difficult") or "").strip()
    if text not in ("", "0", "1"):
        raise _Unusable(BROKEN, f"difficult is {_shown(text)}, expected 0 or 1")
    return text == "1"


def _corners(element: Element) -> np.ndarray:
    """``(4,)`` float64, counted from 0."""
    values = []
    for corner in _CORNERS:
        text = element.findtext(f"bndbox/{corner}")
        if text is None:
            raise _Unusable(BROKEN, f"it has no <bndbox> with a <{corner}>")
        value = _number(text)
        if value is None:
            raise _Unusable(BROKEN, f"{corner} is {_shown(text)}, expected a number of pixels")
        values.append(value - 1)
    return np.array(values)


def _number(text: str) -> float | None:
    """A finite number, or None.  ``float`` alone also takes "nan", "1_0" and other digits."""
    text = text.strip()
    value = float(text) if len(text) < 40 and _NUMBER.fullmatch(text) else np.inf
    return value if np.isfinite(value) else None


def _shown(text: str) -> str:
    """Text of a file for a message: quoted, short, one line."""
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _listed(classes: Sequence[str]) -> str:
    more = f", ... ({len(classes)} in all)" if len(classes) > 5 else ""
    return ", ".join(classes[:5]) + more


class VOCObject(NamedTuple):
    """An object to be written."""

    name: str
    box: Sequence[float]  # corners (xmin, ymin, xmax, ymax), pixels from 0, last ones included
    difficult: bool = False


def annotation_xml(
    filename: str, size: tuple[int, int], objects: Iterable[VOCObject], *, folder: str = "VOC2007"
) -> str:
    """Return the annotation of one picture of ``size`` (width, height); three channels.

    Raises: InputError if a name has characters that XML cannot hold.
    """
    lines = [
        "<annotation>",
        f"\t<folder>{_text(folder)}</folder>",
        f"\t<filename>{_text(filename)}</filename>",
        f"\t<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>",
        "\t<segmented>0</segmented>",
    ]
    for item in objects:
        corners = "".join(
            f"<{corner}>{_decimal(value + 1)}</{corner}>"
            for corner, value in zip(_CORNERS, item.box)
        )
        lines += [
            "\t<object>",
            f"\t\t<name>{_text(item.name)}</name>",
            "\t\t<pose>Unspecified</pose>",
            "\t\t<truncated>0</truncated>",
            f"\t\t<difficult>{int(item.difficult)}</difficult>",
            f"\t\t<bndbox>{corners}</bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _text(text: str) -> str:
    if found := _NOT_XML.search(text):
        raise InputError(f"{_shown(text)}: XML cannot hold the character {found[0]!r}")
    return escape(text)


def _decimal(value: float) -> str:
    """Without an exponent, to 1/10,000 pixel; whole numbers without a point, as VOC has them."""
    return f"{value:.4f}".rstrip("0").rstrip(".")
