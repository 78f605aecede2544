import json

import numpy as np
import pytest

from gluon_asymmnet.card import ClassifierCard
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.sources import FolderTree
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.evaluation.label_maps import (
    LabelMap,
    map_source,
    read_label_map,
    restricted,
    results_row,
    score,
)

LOGITS = np.float32([[9, 1, 5, 0, 0, 0, 0], [9, 8, 0, 0, 0, 0, 0], [9, 0, 8, 7, 0, 0, 0]])
CARD = ClassifierCard(classes=7, input_size=8, crop_ratio=1.0, parameters=1_234_567)


@pytest.fixture
def source(tmp_path):
    """Three images of two classes: x, x, y."""
    for place in ("x/1", "x/2", "y/1"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / f"{place}.png").write_bytes(encode(np.zeros((8, 8, 3), np.uint8), ".png"))
    return FolderTree(tmp_path)


def run(source, predict):
    return evaluate(predict, source, classes=7, preprocessing=CARD.preprocessing, batch_size=3)


def test_only_the_classes_of_the_set_are_predicted(source):
    """Class 0 has the greatest logit each time; x is 2 and y is 1."""
    mapped, classes = map_source(source, LabelMap("map", {"x": 2, "y": "1", "z": 5}, None), CARD)
    assert classes == [1, 2]
    assert [mapped.label(i) for i in range(3)] == [2, 2, 1]
    found = run(mapped, restricted(lambda images: LOGITS, classes))
    assert found.ranked[:, 0].tolist() == [2, 1, 2]
    assert found.top1 == pytest.approx(1 / 3)
    expected = [np.log(1 + np.exp(d)) for d in (-4, 8, 8)]  # softmax over the two
    assert found.loss == pytest.approx(np.mean(expected), rel=1e-5)


def test_any_label_of_an_image_is_right(source):
    found = run(source, lambda images: LOGITS)
    scored = score(found, LabelMap("map", None, [[3, 0], [], [6, 3]]))
    assert (scored.images, scored.unlabelled) == (2, 1)
    assert (scored.top1, scored.top5) == (0.5, 1.0)
    assert results_row(CARD, scored).splitlines()[1] == (
        "asymmnet_large_w1.0_r1,50.000,50.000,100.000,0.000,1.23,8,1,bilinear"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a label map"),
        ("[1, 2]", "not a label map"),
        ('{"a": 1.5}', "a class of the model is a whole number or a name"),
        ("{}", "not a label map"),
    ],
)
def test_files_that_are_none(content, message, tmp_path):
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(FormatError, match=message):
        read_label_map(tmp_path / "map.json")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"x": 2}, "map lacks classes of .*: 'y'"),
        ({"x": 2, "y": 7}, "map: 7 is not one of the model's 7 classes"),
        ({"x": 2, "y": "cat"}, "only in map: 'cat'"),
    ],
)
def test_maps_that_do_not_fit(classes, message, source):
    with pytest.raises(InputError, match=message):
        map_source(source, LabelMap("map", classes, None), CARD)


@pytest.mark.thorough
def test_the_command(teacher_run, digits, tmp_path, capsys):
    from gluon_asymmnet.cli import main

    labels = [[i % 10] for i in range(449)]
    (tmp_path / "real.json").write_text(json.dumps(labels))
    command = ["eval", "imagenet", str(teacher_run), "--rec-val", str(digits.val), "--label-map"]
    assert main([*command, str(tmp_path / "real.json")]) == 0
    assert "asymmnet_small_w0.35_r1," in capsys.readouterr().out
    (tmp_path / "real.json").write_text("[[1]]")
    assert main([*command, str(tmp_path / "real.json")]) == 2
    assert "has labels of 1 images" in capsys.readouterr().err
