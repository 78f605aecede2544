"""Convert pictures with VOC annotations beside them, as labelImg writes them, to a VOC folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from gluon_asymmnet.data.boxes.findings import REPAIRED
from gluon_asymmnet.data.boxes.rotation import is_in_stored_frame, turn_boxes
from gluon_asymmnet.data.boxes.voc import header_info_of
from gluon_asymmnet.data.boxes.voc_write import (
    ConversionReport,
    Faults,
    FoundImage,
    folder_splits,
    split_by_name,
    unique_stems,
    write_voc,
)
from gluon_asymmnet.data.boxes.voc_xml import (
    AnnotationFile,
    ClassNames,
    VOCObject,
    parse_file,
    parse_objects,
)
from gluon_asymmnet.data.image_files import list_images_below
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.errors import FormatError, InputError, reason_of


def labelimg_to_voc(
    folder: PathLike,
    out: PathLike,
    *,
    shares: Mapping[str, float],
    seed: int = 0,
    classes: Sequence[str] | None = None,
    keep_unlabelled: bool = False,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Write the pictures below ``folder`` that have an XML of the same name beside them.

    The XML may also name its picture by ``<filename>``.  Annotations have VOC's rules: pixels count
    from 1, and a box holds its last row and column.  Subfolders train, val (or valid) and test, if
    there are no others, are the splits; otherwise images are divided, see ``split_by_name``.

    Args:
        shares: of the splits ``val`` and ``test``.
        classes: names in label order; by default those of all objects, sorted.  Of names that
            differ in case only, the most frequent one.
        keep_unlabelled: pictures without XML are pictures without objects; else they are left out.
        skip_bad: leave out faulty files and objects, and say which.
        progress: called with (done, total) after each image.

    Raises: FileNotFoundError; FormatError for a faulty file or object; InputError if there is no
        XML, or ``out`` exists.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    report = ConversionReport(0, 0, [], [], [], {})
    faults = Faults(report.skipped if skip_bad else None)
    labelled, unlabelled = _pairs(folder, faults, report)
    if not labelled:
        raise InputError(f"{folder} holds no XML annotation with a picture beside it")
    names = ClassNames(_class_names(labelled.values()) if classes is None else classes)
    if unlabelled and not keep_unlabelled:
        report.derived.append(
            f"{len(unlabelled)} pictures without XML are left out, e.g. {unlabelled[0]}; "
            f"--keep-unlabelled takes them as pictures without objects"
        )
    paths = sorted([*labelled, *(unlabelled if keep_unlabelled else [])])
    relative = [PurePosixPath(path.relative_to(folder).as_posix()) for path in paths]
    found, splits = [], defaultdict(list)
    of_folders = folder_splits(relative)
    for path, stem, place in zip(paths, unique_stems(relative), relative):
        with faults:
            image = _image(path, stem, labelled.get(path), names, faults, report)
            found.append(image)
            splits[of_folders.get(place.parts[0], "")].append(stem)
    if not of_folders:
        splits = split_by_name([image.stem for image in found], shares, "train", seed)
    return write_voc(out, found, names, splits, report, faults, progress)


def _pairs(folder: Path, faults: Faults, report) -> tuple[dict[Path, AnnotationFile], list[Path]]:
    """Return the annotation of each labelled picture, and the pictures without one."""
    pictures = set(list_images_below(folder))
    by_stem = defaultdict(list)
    for path in sorted(pictures):
        by_stem[path.with_suffix("")].append(path)
    pairs: dict[Path, AnnotationFile] = {}
    for xml in list_images_below(folder, lambda name: name.lower().endswith(".xml")):
        with faults:
            try:
                file = parse_file(xml.read_bytes())
            except (FormatError, OSError) as error:
                raise FormatError(f"{xml}: {reason_of(error)}") from None
            choices = by_stem[xml.with_suffix("")]
            named = xml.parent / (file.filename or xml.name)
            if named in pictures and (named in choices or not choices):
                choices = [named]
                if named.stem != xml.stem:
                    report.derived.append(f"{xml}: its picture is {named.name}, by <filename>")
            if len(choices) != 1:
                several = " and ".join(path.name for path in choices)
                raise FormatError(
                    f"{xml}: expected one picture beside it, found {several or 'none'}"
                )
            if choices[0] in pairs:
                raise FormatError(f"{xml}: {choices[0].name} has an annotation already")
            pairs[choices[0]] = file
    return pairs, sorted(pictures - set(pairs))


def _class_names(files) -> list[str]:
    counts = Counter(
        (element.findtext("name") or "").strip()
        for file in files
        for element in file.root.findall("object")
    )
    usual: dict[str, str] = {}
    for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if name:
            usual.setdefault(name.casefold(), name)
    if not usual:
        raise InputError("no annotation holds an object with a name; name the classes")
    return sorted(usual.values())


def _image(path, stem, file, names, faults: Faults, report) -> FoundImage:
    try:
        info = header_info_of(path)
        stored = is_in_stored_frame(info, file.size) if file else False
    except (FormatError, OSError) as error:
        raise FormatError(f"{path}: {reason_of(error)}") from None
    if file is None:
        return FoundImage(path, stem, info, [])
    parsed = parse_objects(file, names, file.size or (info.width, info.height))
    for issue in parsed.issues:
        text = f"{path.with_suffix('.xml')}: {issue.message}"
        if issue.kind in REPAIRED:
            report.derived.append(text)
        else:
            with faults:
                raise FormatError(text)
    boxes = turn_boxes(parsed.boxes, info) if stored else parsed.boxes
    if stored:
        report.derived.append(
            f"{path}: the boxes were drawn on the picture without its EXIF rotation; turned"
        )
    elif stored is None and len(boxes):
        report.derived.append(
            f"{path}: EXIF orientation {info.orientation} keeps the size, so the boxes may be "
            f"drawn on the picture with or without it; taken as with it"
        )
    objects = [
        VOCObject(names[label], box.tolist(), bool(difficult))
        for label, box, difficult in zip(parsed.labels, boxes, parsed.difficult)
    ]
    return FoundImage(path, stem, info, objects)
