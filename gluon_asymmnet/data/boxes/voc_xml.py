"""Parse and write the XML annotation of one Pascal VOC image; malformed files raise FormatError.

The devkit counts pixels from 1, and a box includes its last row and column.  Here pixels count from
0, as in GluonCV: 1 is subtracted from all four corners, and boxes stay inclusive.
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

MAX_BYTES = 1 << 20  # of one annotation; an object of VOC takes about 500

# Kinds of issues of an object.  With the first three it is unusable, with the others repaired.
BROKEN, UNKNOWN, BAD_BOX, CLIPPED, RENAMED = "broken", "unknown", "bad box", "clipped", "renamed"

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)
_MAX_NAME_BYTES = 250  # file systems allow 255, including the extension
_MAX_SIDE = 1 << 24  # pixels: float32 represents all integers up to here
# Characters that XML 1.0 does not allow, not even escaped.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Issue(NamedTuple):
    """An issue of one object."""

    kind: str  # one of the five above
    message: str  # one line: the object, the error, the expected value
    name: str  # class name as in the file; "" if missing


class ParsedAnnotation(NamedTuple):
    """One annotation, without its unusable objects."""

    size: tuple[int, int]  # (width, height), pixels
    filename: str | None  # of the image, without folder; None if missing
    boxes: np.ndarray  # (n, 4) float32, corners (xmin, ymin, xmax, ymax), pixels from 0
    labels: np.ndarray  # (n,) int64, positions in the class names
    difficult: np.ndarray  # (n,) bool
    issues: list[Issue]


class AnnotationFile(NamedTuple):
    """One annotation, before its objects are parsed."""

    root: Element
    size: tuple[int, int] | None  # (width, height), pixels; None if missing or 0
    filename: str | None  # of the image, without folder; None if missing


class _Unusable(Exception):  # noqa: N818 - never leaves this module
    """An object that has to be skipped; arguments are kind and reason."""


class ClassNames(Sequence):
    """Class names in label order, with case-insensitive search.

    Raises: InputError if there are none, or two differ only in case and surrounding whitespace.
    """

    def __init__(self, names: Iterable[str]):
        self._names = tuple(names)
        self._positions: dict[str, int] = {}
        for i, name in enumerate(self._names):
            first = self._positions.setdefault(_normalise(name), i)
            if first != i:
                raise InputError(
                    f"class {i} ({name!r}) equals class {first} ({self._names[first]!r}): names "
                    f"are compared case-insensitively"
                )
        if not self._names or "" in self._positions:
            raise InputError(f"expected class names, at least one and none empty: {self._names}")

    def find(self, name: str) -> int | None:
        """Return the label of a class, or None."""
        return self._positions.get(_normalise(name))

    def __getitem__(self, i):
        return self._names[i]

    def __len__(self) -> int:
        return len(self._names)


def _normalise(name: str) -> str:
    return name.strip().casefold()


def parse_annotation(data: bytes, classes: ClassNames) -> ParsedAnnotation:
    """Parse one annotation that has a size; labels are positions in ``classes``.

    Raises: FormatError if the file as a whole is unusable, see ``parse_file``, or has no size.
    """
    file = parse_file(data)
    if file.size is None:
        raise FormatError("there is no <size> with a <width> and a <height>")
    return parse_objects(file, classes, file.size)


def parse_file(data: bytes) -> AnnotationFile:
    """Parse one annotation as far as its size and file name.

    Raises: FormatError if the file as a whole is unusable: no XML, larger than ``MAX_BYTES``, with
        a document type (against XML entity bombs), or with a size that is not a number.
    """
    root = _parse_xml(data)
    if root.tag != "annotation":
        raise FormatError(f"the outermost element is {_quote(root.tag)}, expected 'annotation'")
    return AnnotationFile(root, _size(root), _filename(root))


def parse_objects(
    file: AnnotationFile, classes: ClassNames, size: tuple[int, int]
) -> ParsedAnnotation:
    """Parse the objects of an annotation; labels are positions in ``classes``.

    A missing ``<difficult>`` is 0.  Boxes are clipped to the image of ``size`` (width, height).
    Errors of single objects are returned as ``Issue``, so that one pass finds all of them.
    """
    objects, issues = [], []
    for number, element in enumerate(file.root.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        where = f"object {number} ({_quote(name)})"
        try:
            label, box, difficult, repairs = _object(element, name, classes, size)
        except _Unusable as reason:
            kind, message = reason.args
            issues.append(Issue(kind, f"{where}: {message}", name))
        else:
            objects.append((label, box, difficult))
            issues += [Issue(kind, f"{where}: {message}", name) for kind, message in repairs]
    labels, boxes, difficult = zip(*objects) if objects else ((), (), ())
    return ParsedAnnotation(
        size,
        file.filename,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(difficult, bool),
        issues,
    )


def _parse_xml(data: bytes) -> Element:
    """Return the root element; entities and document types are rejected, not expanded.

    An exception in a handler stops the parser immediately (``XML_StopParser``).
    """
    if len(data) > MAX_BYTES:
        raise FormatError(f"{len(data)} bytes; an annotation has at most {MAX_BYTES}")
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _reject_entities
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise FormatError(f"broken XML: {error}") from None
    except FormatError:
        raise
    except (ValueError, LookupError) as error:  # an encoding that expat passes on to Python
        raise FormatError(f"broken XML: {_quote(str(error))}") from None
    return builder.close()


def _reject_entities(*_declaration) -> None:
    raise FormatError("the XML declares a document type or an entity, which is not accepted")


def _size(root: Element) -> tuple[int, int] | None:
    sides = []
    for side in ("width", "height"):
        text = root.findtext(f"size/{side}") or "0"
        value = _number(text)
        if value is None or value != int(value) or not 0 <= value < _MAX_SIDE:
            raise FormatError(f"{side} is {_quote(text)}, expected a whole number of pixels")
        sides.append(int(value))
    return (sides[0], sides[1]) if min(sides) > 0 else None


def _filename(root: Element) -> str | None:
    """Return the file name without folders, which some tools write with it, or None."""
    name = re.split(r"[/\\]", (root.findtext("filename") or "").strip())[-1]
    return name if is_bare_name(name) else None


def is_bare_name(name: str) -> bool:
    """Whether ``name`` can only mean a file in the folder it is looked up in."""
    length = len(name.encode("utf-8", "surrogatepass"))
    return (
        not re.search(r"[/\\\0\r\n]", name)
        and name not in ("", ".", "..")
        and length <= _MAX_NAME_BYTES
    )


def _object(element: Element, name: str, classes: ClassNames, size: tuple[int, int]):
    """Return ``(label, box, difficult, repairs)`` of one object.  Raises: _Unusable."""
    if not name:
        raise _Unusable(BROKEN, "it has no <name>")
    difficult = _difficult(element)
    box = _corners(element)
    label = classes.find(name)
    if label is None:
        expected = f"expected one of {_list_names(classes)}; a classes.txt beside Annotations/"
        raise _Unusable(UNKNOWN, f"unknown class; {expected} names others")
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
            (
                CLIPPED,
                f"the box {spelled} is clipped to 1 to {width} x 1 to {height}",
            )
        )
    return label, inside, difficult, repairs


def _difficult(element: Element) -> bool:
    text = (element.findtext("difficult") or "").strip()
    if text not in ("", "0", "1"):
        raise _Unusable(BROKEN, f"difficult is {_quote(text)}, expected 0 or 1")
    return text == "1"


def _corners(element: Element) -> np.ndarray:
    """Return corners ``(4,)`` float64, counted from 0."""
    values = []
    for corner in _CORNERS:
        text = element.findtext(f"bndbox/{corner}")
        if text is None:
            raise _Unusable(BROKEN, f"it has no <bndbox> with a <{corner}>")
        value = _number(text)
        if value is None:
            raise _Unusable(BROKEN, f"{corner} is {_quote(text)}, expected a number of pixels")
        values.append(value - 1)
    return np.array(values)


def _number(text: str) -> float | None:
    """Return a finite number, or None; stricter than ``float``, which accepts "nan" and "1_0"."""
    text = text.strip()
    value = float(text) if len(text) < 40 and _NUMBER.fullmatch(text) else np.inf
    return value if np.isfinite(value) else None


def _quote(text: str) -> str:
    """Quote text of a file for a message, shortened to one line."""
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _list_names(classes: Sequence[str]) -> str:
    more = f", ... ({len(classes)} in all)" if len(classes) > 5 else ""
    return ", ".join(classes[:5]) + more


class VOCObject(NamedTuple):
    """An object to write."""

    name: str
    box: Sequence[float]  # corners (xmin, ymin, xmax, ymax), pixels from 0, last ones included
    difficult: bool = False


def annotation_xml(
    filename: str, size: tuple[int, int], objects: Iterable[VOCObject], *, folder: str = "VOC2007"
) -> str:
    """Return the XML of one image of ``size`` (width, height) with three channels.

    Raises: InputError if a name has characters that XML does not allow.
    """
    lines = [
        "<annotation>",
        f"\t<folder>{_escape(folder)}</folder>",
        f"\t<filename>{_escape(filename)}</filename>",
        f"\t<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>",
        "\t<segmented>0</segmented>",
    ]
    for item in objects:
        corners = "".join(
            f"<{corner}>{_format_number(value + 1)}</{corner}>"
            for corner, value in zip(_CORNERS, item.box)
        )
        lines += [
            "\t<object>",
            f"\t\t<name>{_escape(item.name)}</name>",
            "\t\t<pose>Unspecified</pose>",
            "\t\t<truncated>0</truncated>",
            f"\t\t<difficult>{int(item.difficult)}</difficult>",
            f"\t\t<bndbox>{corners}</bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _escape(text: str) -> str:
    if found := _NOT_XML.search(text):
        raise InputError(f"{_quote(text)}: XML does not allow the character {found[0]!r}")
    return escape(text)


def _format_number(value: float) -> str:
    """Format without exponent to 1/10,000 pixel; whole numbers without a point, as in VOC."""
    return f"{value:.4f}".rstrip("0").rstrip(".")
