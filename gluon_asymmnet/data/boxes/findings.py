"""What was left out, repaired or derived while a source of images with boxes was opened."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gluon_asymmnet.data.boxes.voc_xml import BAD_BOX, BROKEN, CLIPPED, RENAMED, UNKNOWN

DERIVED, UNSURE = "derived", "unsure"
REPAIRED = (CLIPPED, RENAMED, DERIVED, UNSURE)  # kinds that leave the object in

_TEXTS = {
    BROKEN: "left out {} faulty images or objects",
    BAD_BOX: "left out {} objects whose box is empty or outside the image",
    CLIPPED: "{} boxes are clipped to their image",
    RENAMED: "{} class names are read in another case",
    DERIVED: "{} times a missing or contradictory field is derived",
    UNSURE: "{} images are rotated by EXIF, and whether their boxes are, too, cannot be known",
}
_MOST_NAMES = 5  # of unknown classes in one line


class Problem(NamedTuple):
    """A finding about one image or object."""

    file: str
    kind: str  # "broken", "unknown", "bad box"; or of ``REPAIRED``
    message: str  # one line
    name: str = ""  # class name of an object, as in the file


def summaries(found: Iterable[Problem], classes: Sequence[str]) -> list[str]:
    """Return one line per kind of finding: count, and an example or the names."""
    found = list(found)
    lines = []
    unknown = Counter(problem.name for problem in found if problem.kind == UNKNOWN)
    if unknown:
        named = [_with_nearest(name, n, classes) for name, n in unknown.most_common(_MOST_NAMES)]
        more = f" and {len(unknown) - _MOST_NAMES} more" if len(unknown) > _MOST_NAMES else ""
        lines.append(
            f"left out {sum(unknown.values())} objects of {len(unknown)} classes that are none of "
            f"the {len(classes)}: {', '.join(named)}{more}"
        )
    for kind, text in _TEXTS.items():
        of_kind = [problem for problem in found if problem.kind == kind]
        if of_kind:
            first = of_kind[0]
            lines.append(f"{text.format(len(of_kind))}, e.g. {first.file}: {first.message}")
    return lines


def _with_nearest(name: str, count: int, classes: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name.lower(), classes, n=1)
    return f"{name!r} {count} times" + (f" (meant is {nearest[0]!r}?)" if nearest else "")
