"""Write images with boxes of any origin as a VOC folder, divided into splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gluon_asymmnet.data.boxes.voc import CLASSES_FILE, SKIP_BAD, list_file
from gluon_asymmnet.data.boxes.voc_xml import VOCObject, annotation_xml, is_bare_name
from gluon_asymmnet.data.class_names import name_lines
from gluon_asymmnet.data.image_headers import ImageInfo
from gluon_asymmnet.data.images import fit_image
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.errors import FormatError, InputError, reason_of
from gluon_asymmnet.utils.atomic import new_folder
from gluon_asymmnet.utils.parallel import silent

QUALITY = 95  # of the JPEGs that pictures of other formats, or with an EXIF rotation, become
USUAL_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class FoundImage(NamedTuple):
    """A picture of another data set, with its objects."""

    path: Path
    stem: str  # its id in the VOC folder
    info: ImageInfo
    objects: list[VOCObject]  # boxes in the turned picture


class ConversionReport(NamedTuple):
    """The result of a conversion."""

    images: int
    objects: int
    classes: list[str]
    skipped: list[str]  # one line with the reason per image or object left out
    derived: list[str]  # one line per image whose name, size or rotation had to be derived
    splits: dict[str, int]  # images of each split


class Faults:
    """Context manager that lists a FormatError, or raises it again with the flag's name."""

    def __init__(self, skipped: list[str] | None):
        self._skipped = skipped

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, _trace) -> bool:
        if not isinstance(error, FormatError):
            return False
        if self._skipped is None:
            raise FormatError(f"{error}; {SKIP_BAD}") from None
        self._skipped.append(str(error))
        return True


def write_voc(
    out: PathLike,
    images: Sequence[FoundImage],
    classes: Sequence[str],
    splits: Mapping[str, Iterable[str]],
    report: ConversionReport,
    faults: Faults,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Write the folder ``out``, one set like VOC2007, all or nothing; return the completed report.

    JPEGs are copied byte for byte; pictures of other formats, or with an EXIF rotation, are encoded
    as JPEG, turned.

    Args:
        splits: the ids of each list, e.g. ``{"train": [...], "val": [...]}``.
        report: ``skipped`` and ``derived`` of it are kept.
        progress: called with (done, total) after each image.

    Raises:
        FormatError: a picture is damaged; see ``Faults``.
        InputError: ``out`` exists, a class name cannot be written, or no image is usable.
    """
    out, objects, progress = Path(out), {}, progress or silent
    with new_folder(out) as scratch:
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (scratch / folder).mkdir(parents=True)
        (scratch / CLASSES_FILE).write_bytes(name_lines(classes))
        for done, image in enumerate(images, 1):
            file, size = f"{image.stem}.jpg", (image.info.width, image.info.height)
            with faults:
                jpeg = _jpeg(image.path)
                xml = annotation_xml(file, size, image.objects, folder=out.name)
                (scratch / "JPEGImages" / file).write_bytes(jpeg)
                (scratch / "Annotations" / f"{image.stem}.xml").write_text(xml, encoding="utf-8")
                objects[image.stem] = len(image.objects)
            progress(done, len(images))
        if not objects:
            why = f": {report.skipped[0]}" if report.skipped else ""
            raise InputError(f"no image is usable{why}")
        counts = {}
        for name, stems in splits.items():
            kept = [stem for stem in stems if stem in objects]
            if kept:
                counts[name] = len(kept)
                list_file(scratch, name).write_text("".join(f"{s}\n" for s in kept), "utf-8")
    return report._replace(
        images=len(objects), objects=sum(objects.values()), classes=list(classes), splits=counts
    )


def _jpeg(path: Path) -> bytes:
    """Return the image as JPEG, turned; check that it decodes."""
    try:
        return fit_image(path.read_bytes(), 0, ".jpg", QUALITY)
    except (FormatError, OSError) as error:
        raise FormatError(f"{path}: {reason_of(error)}") from None


def folder_splits(paths: Sequence[PurePosixPath]) -> dict[str, str]:
    """Return the split of each top folder if all of them are named like splits; else {}."""
    tops = {path.parts[0] if len(path.parts) > 1 else "" for path in paths}
    splits = {top: USUAL_SPLITS.get(top.lower(), "") for top in tops}
    return splits if splits and all(splits.values()) else {}


def split_by_name(
    names: Iterable[str], shares: Mapping[str, float], rest: str, seed: int = 0
) -> dict[str, list[str]]:
    """Divide names into splits at random: the seed and the names decide, not their order.

    Names are ranked by a hash of seed and name.  Each share takes its number of names, rounded and
    at least one; the ``rest`` follows.  Of a set that grows, nearly all names stay where they were.

    Args:
        shares: of each split but the rest, above 0; zeros are left out.

    Returns: sorted names of each split, the rest first.
    Raises: InputError if shares are out of range or leave no name for the rest.
    """
    names = sorted(set(names))
    shares = {name: share for name, share in shares.items() if share != 0}
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        given = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise InputError(f"shares of splits must be from 0 to 1, below 1 together, got {given}")
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    found: dict[str, list[str]] = {rest: []}
    for split, share in shares.items():
        count = max(1, round(share * len(names)))
        found[split], ranked = sorted(ranked[:count]), ranked[count:]
    if not ranked:
        raise InputError(f"{len(names)} images are too few for the splits {', '.join(found)}")
    found[rest] = sorted(ranked)
    return found


def unique_stems(paths: Sequence[PurePosixPath]) -> list[str]:
    """Return an id for each relative path: its stem, or all its parts where two have it.

    Raises: FormatError if two paths still have the same id, or one is not a bare name.
    """
    uses = Counter(path.stem.casefold() for path in paths)  # some file systems ignore case
    found: dict[str, str] = {}
    for path in paths:
        stem = path.stem
        if uses[stem.casefold()] > 1:
            stem = "_".join(path.with_suffix("").parts)
        if stem.casefold() in found:
            raise FormatError(f"{path} and another picture would get the name {stem!r}; rename one")
        if not is_bare_name(stem) or stem != stem.strip() or stem.startswith("#"):
            raise FormatError(f"{str(path)!r} gives no usable image id; rename it")
        found[stem.casefold()] = stem
    return list(found.values())
