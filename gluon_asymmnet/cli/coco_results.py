"""The results of ``detect`` in COCO's format, a list with an entry per object."""

import json
from collections.abc import Sequence

from gluon_asymmnet.cli.outputs import TextFile
from gluon_asymmnet.data.boxes.coco import load_coco
from gluon_asymmnet.data.class_names import match_classes
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.predict.inputs import Frame


class CocoResults(TextFile):
    """Entries ``{image_id, category_id, bbox, score}``, as ``COCO.loadRes`` of pycocotools takes.

    A box holds its last row and column, as VOC's boxes and those of ``voc from-coco``: corners
    become ``x, y, xmax - xmin + 1, ymax - ymin + 1``, cut at the picture's border.

    Args:
        class_names: of the model.
        ids: an annotation file, whose ids are taken: an image's by its file name or the end of its
            path, a category's by its name.  Without one, pictures and frames are counted from 1 and
            categories are labels from 1, as ``voc to-coco`` does.

    Raises: InputError if the model has classes that the annotation file does not have.
    """

    def __init__(self, path: str, class_names: Sequence[str], ids: str = ""):
        super().__init__(path)
        self._images, self._categories = None, list(range(1, len(class_names) + 1))
        if ids:
            content = load_coco(ids)
            try:
                names = {entry["id"]: entry["name"] for entry in content["categories"]}
                self._images = _by_name(content["images"])
            except (KeyError, TypeError, AttributeError):
                raise FormatError(f"{ids}: an image or a category has no id or no name") from None
            places = match_classes(class_names, list(names.values()), "the model", ids)
            self._categories = [list(names)[place] for place in places]
        self._ids, self._frames, self._rows = ids, 0, 0

    def _begin(self) -> None:
        self._file.write("[")

    def add(self, frame: Frame, found) -> None:
        """Write the objects of a picture or frame.  Raises: InputError if it is not in the set."""
        self._frames += 1
        image_id = self._image_id(frame)
        height, width = frame.rgb.shape[:2]
        for label, score, box in zip(found.labels, found.scores.tolist(), found.boxes.tolist()):
            left, top, right, bottom = box
            size = (min(right + 1, width) - left, min(bottom + 1, height) - top)
            entry = {
                "image_id": image_id, "category_id": self._categories[label],
                "bbox": [left, top, *size], "score": score,
            }  # fmt: skip
            self._file.write(("," if self._rows else "") + "\n" + json.dumps(entry))
            self._rows += 1

    def _image_id(self, frame: Frame):
        if self._images is None:
            return self._frames
        shown = frame.input.shown.replace("\\", "/")
        parts = shown.split("/")
        for first in range(len(parts)):  # the longest end of the path decides
            found = self._images.get("/".join(parts[first:]), [])
            if len(found) == 1 and frame.number is None:
                return found[0]
        raise InputError(
            f"--coco-ids: {self._ids} has no image {parts[-1]!r}, or several; it must list every "
            f"picture once, and no video"
        )

    def _end(self) -> None:
        self._file.write("\n]\n")


def _by_name(images: Sequence[dict]) -> dict[str, list]:
    """Return the ids of each file name, with its folders and without."""
    found: dict[str, list] = {}
    for entry in images:
        name = entry["file_name"].replace("\\", "/").removeprefix("./")
        for key in {name, name.rpartition("/")[2]}:
            found.setdefault(key, []).append(entry["id"])
    return found
