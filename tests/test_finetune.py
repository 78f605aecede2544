"""Fine-tuning: what is taken from the weights, and which settings follow from them."""

import json

import cv2
import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.class_names import common_classes
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.train.checkpoint import net_arrays
from gluon_asymmnet.train.classifier import ClassifierTask
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.detector import DetectorTask
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.weights.params_file import read_params, write_params
from tests.conftest import GREY

NAMES = ["3", "8", "seven"]  # the weights know "3" and "8"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Class folders with two pictures each, for training and validation."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in NAMES:
        for part in ("train", "val"):
            (folder / part / name).mkdir(parents=True)
            for k in range(2):
                picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
                cv2.imwrite(str(folder / part / name / f"{k}.png"), picture)
    return folder


def config(photos, **given):
    usual = {"data_dir": str(photos), "dataset": "custom", "batch_size": 2, "num_workers": 1,
             "threads": 1, "num_epochs": 3}  # fmt: skip
    return resolve(ClassifierConfig, {**usual, **given})


def test_network_and_input_are_those_of_the_weights(photos, teacher_run):
    found = config(photos, finetune=str(teacher_run))
    assert (found.model, found.width, found.input_size) == ("asymmnet_small", 0.35, 48)
    assert (found.rgb_mean, found.rgb_std) == GREY
    assert (found.lr, found.warmup) == (pytest.approx(0.01), 1)
    assert config(photos, finetune=str(teacher_run), num_epochs=90).warmup == 1
    given = config(photos, finetune=str(teacher_run), lr=0.3, input_size=32, recipe="demo")
    assert (given.lr, given.input_size, given.model) == (0.3, 32, "asymmnet_small")


def test_rows_of_the_classifier_are_copied_by_name(photos, teacher_run):
    task = ClassifierTask(config(photos, finetune=str(teacher_run)), [mx.cpu()])
    before, now = read_params(teacher_run / "best.params"), net_arrays(task.net)
    before = {name.removeprefix("arg:").removeprefix("aux:"): a for name, a in before.items()}
    for name in ("output.weight", "output.bias"):
        assert now[name].shape[0] == 3
        np.testing.assert_array_equal(now[name][[0, 1]], before[name][[3, 8]])
    assert not np.isin(now["output.weight"][2], before["output.weight"]).any()
    others = [name for name in now if not name.startswith("output")]
    assert all(np.array_equal(now[name], before[name]) for name in others)
    assert task.start_line == (
        f"fine-tuning from {teacher_run / 'best.params'}: loaded all but the classifier; its "
        "classes: 2 copied by name ('3', '8'), 1 new ('seven'), 8 of the weights left out "
        "('0', '1', '2', '4', '5' and 3 more)"
    )


def test_a_bare_file_gives_a_new_classifier_and_needs_the_model(photos, teacher_run, tmp_path):
    bare = tmp_path / "net/bare.params"
    bare.parent.mkdir()
    bare.write_bytes((teacher_run / "best.params").read_bytes())
    with pytest.raises(InputError, match="no card beside it names its network; add --model"):
        config(photos, finetune=str(bare))
    settings = config(photos, finetune=str(bare), model="asymmnet_small", width=0.35, input_size=32)
    line = ClassifierTask(settings, [mx.cpu()]).start_line
    assert line.endswith(
        "loaded all but the classifier, which is new: the weights have no class names"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"finetune": "nowhere"}, "--finetune nowhere: no such file or folder; expected a run"),
        ({"finetune": "published", "use_pretrained": True}, "give --use-pretrained or --finetune"),
    ],
)
def test_what_cannot_be_fine_tuned_says_why(photos, given, message):
    with pytest.raises(InputError, match=message):
        config(photos, **given)


def test_names_are_compared_as_people_see_them():
    assert common_classes(["cafe\u0301", "b", "new"], ["b", "caf\u00e9"]) == {0: 1, 1: 0}
    assert common_classes(["a", "b"], ["a", "a", "b"]) == {1: 2}  # which "a" is meant?


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (2, 1), (3, 1), (4, 2), (13, 5), (360, 5)])
def test_the_warm_up_fits_a_run_of_any_length(epochs, warmup):
    found = resolve(ClassifierConfig, {"model": "asymmnet_small", "num_epochs": epochs})
    assert (found.warmup, found.settled().warmup_epochs) == (warmup, warmup)


def test_a_detectors_warm_up_and_that_of_short_recipes():
    for epochs, warmup in ((1, 0), (2, 1), (240, 1)):
        assert resolve(DetectorConfig, {"num_epochs": epochs}).warmup == warmup
    assert resolve(ClassifierConfig, {"recipe": "published", "num_epochs": 3}).warmup == 1
    assert resolve(ClassifierConfig, {"recipe": "published", "num_epochs": 9}).warmup == 5
    with pytest.raises(InputError, match="--warmup-epochs 3 leaves nothing of the 3 epochs"):
        resolve(ClassifierConfig, {"model": "a", "num_epochs": 3, "warmup_epochs": 3})


def test_a_longer_run_keeps_the_warm_up_it_began_with():
    before = resolve(ClassifierConfig, {"model": "a", "num_epochs": 3}).settled()
    now = resolve(ClassifierConfig, {"model": "a", "num_epochs": 30}).settled(before)
    assert (now.warmup_epochs, now.num_epochs) == (1, 30)


@pytest.mark.thorough
def test_a_detectors_predictors_are_copied_by_name(boxes, tmp_path):
    settings = {
        "dataset": "custom", "dataset_root": str(boxes), "train_splits": "2007_trainval",
        "val_splits": "", "batch_size": 4, "num_workers": 1, "threads": 1, "num_epochs": 1,
    }  # fmt: skip
    first = resolve(DetectorConfig, {**settings, "network": "asymmnet_small_0.35",
                                     "data_shape": 300})  # fmt: skip
    source = DetectorTask(first, [mx.cpu()], tmp_path)
    source.net(mx.nd.zeros((1, 3, 300, 300)))
    write_params(tmp_path / "best.params", net_arrays(source.net))
    source.card.save(tmp_path / "card.json")
    card = json.loads((tmp_path / "card.json").read_text())
    renamed = ["other", *card["class_names"][1:]][::-1]
    (tmp_path / "card.json").write_text(json.dumps({**card, "class_names": renamed}))
    found = resolve(DetectorConfig, {**settings, "finetune": str(tmp_path)})
    assert (found.network, found.data_shape, found.lr) == ("asymmnet_small_0.35", 300, 0.001)
    task = DetectorTask(found, [mx.cpu()], tmp_path)
    assert f"{len(renamed) - 1} copied by name" in task.start_line
    assert f"1 new ({card['class_names'][0]!r})" in task.start_line
    old, now = net_arrays(source.net), net_arrays(task.net)
    name = next(n for n in old if n.startswith("class_predictors") and n.endswith("weight"))
    per_box = len(renamed) + 1
    old, now = (a[name].reshape(-1, per_box, *a[name].shape[1:]) for a in (old, now))
    # rows of the file: background, then the classes in its order, which is the reverse
    np.testing.assert_array_equal(now[:, 0], old[:, 0])
    for k in range(1, len(renamed)):
        label = task.class_names.index(card["class_names"][k])
        np.testing.assert_array_equal(now[:, label + 1], old[:, per_box - 1 - k])
