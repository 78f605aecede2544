"""Parts that users register, from a file outside the package."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import CARD_FILE, read_card
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.augmentations import AUGMENTATIONS, register_augmentation
from gluon_asymmnet.data.datasets import DATASETS, open_dataset, register_dataset
from gluon_asymmnet.data.images import decode, encode
from gluon_asymmnet.data.transforms import Augmentation, Normalization, training_image
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.models.registry import FAMILY_MODELS, OWN_MODELS, register_model
from gluon_asymmnet.train.classifier import train
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.losses import LOSSES, checked_loss, register_loss
from gluon_asymmnet.train.optimizers import OPTIMIZERS, make_optimizer, register_optimizer
from gluon_asymmnet.train.schedules import SCHEDULES, Schedule, register_schedule
from gluon_asymmnet.zoo import get_model
from tests.conftest import ROOT
from tests.floats import assert_close

nn = mx.gluon.nn


@pytest.fixture(autouse=True)
def only_here():
    """Take away what a test registered."""
    tables = [OWN_MODELS, FAMILY_MODELS, OPTIMIZERS, SCHEDULES, LOSSES, AUGMENTATIONS, DATASETS]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before):
        table.clear()
        table.update(kept)


def tiny(classes, width=1.0, dropout=0.0):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(int(8 * width), 3, strides=2), nn.BatchNorm(), nn.Activation("relu"),
            nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dropout(dropout), nn.Dense(classes))  # fmt: skip
    return net


def two_colours(split):
    """Dark and bright squares."""
    rng = np.random.default_rng(0)
    labels = np.arange(32 if split == "train" else 16) % 2
    images = [rng.integers(120 * label, 120 * label + 100, (9, 8, 3), np.uint8) for label in labels]
    return images, labels, ["dark", "bright"]


def test_a_model_by_name():
    register_model("tiny_net", tiny)
    net = get_model("tiny_net_0.5", classes=3, dropout=0.5)
    net.initialize()
    assert net(mx.nd.zeros((2, 3, 16, 16))).shape == (2, 3)
    assert net[0].weight.shape == (4, 3, 3, 3)  # known before the first pass
    register_model("tiny_net", lambda classes: tiny(classes, 2.0))  # a notebook's cell runs again
    assert get_model("tiny_net", classes=3)[0].weight.shape[0] == 16


@pytest.mark.parametrize(
    ("name", "factory", "settings", "message"),
    [
        ("asymmnet_large", tiny, {}, "'asymmnet_large' is the package's own"),
        ("ghostnet", tiny, {}, "'ghostnet' is the package's own"),
        ("Tiny", tiny, {}, "cannot name a model: take small letters"),
        ("tiny_2", tiny, {}, "no number behind a _"),
        ("t", tiny, {"rate": 1}, "t can be built at rate 0, got 1"),
        ("t", lambda classes: tiny(classes), {"width": 2}, "t has no width, got 2.0"),
        ("t", lambda classes: tiny(classes), {"dropout": 0.5}, "t has no dropout, got 0.5"),
        ("t", lambda width: tiny(5), {}, "unexpected keyword argument 'classes'; got classes"),
        ("t", lambda classes: tiny(classes + 1), {}, r"gives \[\(1, 6\)\] .* expected \(1, 5\)"),
        ("t", lambda classes: print, {}, "returned a builtin_function_or_method, expected a gluon"),
        ("t", lambda classes: nn.Dense(classes, in_units=7), {}, "cannot be computed on"),
    ],
)
def test_models_that_are_none(name, factory, settings, message):
    with pytest.raises(InputError, match=message):
        register_model(name, factory)
        get_model(name, classes=5, **settings)


def test_a_data_set_of_arrays_paths_and_bytes(tmp_path):
    red = np.full((4, 5, 3), (255, 0, 0), np.uint8)
    (tmp_path / "red.png").write_bytes(encode(red, ".png"))
    images = [red, tmp_path / "red.png", (tmp_path / "red.png").read_bytes(), tmp_path / "none"]
    register_dataset("reds", lambda split: (images, [0, 1, 0, 1], ["a", "b"]))
    source = open_dataset("reds", "val")
    for i in range(3):
        record = source.read(i)
        assert record.label == i % 2
        np.testing.assert_array_equal(decode(record.image), red)
    with pytest.raises(FormatError, match=r"reds/val, image 3: .*none: no such file"):
        source.read(3)
    with pytest.raises(FormatError, match=r"array \(4, 5, 3\) float64, expected \(H, W, 3\) uint8"):
        decode(red / 1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1], "returned a list for 'train', expected"),
        (([], []), "mine/train: no images"),
        (([1, 2], [0]), r"labels \(1,\) int64 for 2 images"),
    ],
)
def test_data_sets_that_are_none(given, message):
    register_dataset("mine", lambda split: given)
    with pytest.raises(InputError, match=message):
        open_dataset("mine", "train")


def test_an_augmentation_gets_the_crop_and_its_random_numbers():
    seen = []

    def negative(rgb, rng):
        seen.append(rng.random())
        return 255 - rgb

    register_augmentation("negative", negative)
    how = Augmentation(1.0, mirror=False, jitter=0, pca_noise=0, aspect=(1, 1))
    rgb = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    plain = Normalization((0, 0, 0), (1, 1, 1))
    image, other = (
        training_image(rgb, 8, h, plain, np.random.default_rng(5))
        for h in (how, how._replace(further=("negative",)))
    )
    np.testing.assert_array_equal(other, 255 - image)
    training_image(rgb, 8, how._replace(further=("negative",)), plain, np.random.default_rng(5))
    assert seen[0] == seen[1]
    register_augmentation("half", lambda rgb, rng: rgb / 2)
    with pytest.raises(InputError, match=r"half returned \(8, 8, 3\) float64, expected"):
        training_image(rgb, 8, how._replace(further=("half",)), plain, np.random.default_rng(5))


def test_three_augment_is_one_of_three():
    rgb = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    how = AUGMENTATIONS["3-augment"]
    kinds = []
    for seed in range(30):
        found = how(rgb, np.random.default_rng(seed))
        grey = (found[..., :1] == found).all()
        solar = (found == np.where(rgb < 128, rgb, 255 - rgb)).all()
        kinds.append("grey" if grey else "solar" if solar else "blur")
    assert set(kinds) == {"grey", "solar", "blur"}


def test_an_optimizer_a_schedule_and_a_loss():
    register_optimizer("mine", lambda config: mx.optimizer.Signum(momentum=config.momentum))
    assert register_schedule("rise", len) is len  # so that it decorates, too
    register_schedule("flat", lambda schedule, passed: schedule.peak / 2)
    register_loss("squares", lambda logits, target: ((logits - target) ** 2).sum(axis=1))
    config = resolve(ClassifierConfig, {
        "model": "asymmnet_small", "optimizer": "mine", "momentum": 0.3, "lr_mode": "flat",
        "loss": "squares", "wd": 0.01,
    })  # fmt: skip
    optimizer = make_optimizer(config, learning_rate=0.5)
    assert (optimizer.momentum, optimizer.wd, optimizer.learning_rate) == (0.3, 0.01, 0.5)
    assert Schedule("flat", 0.4, 0, 10)(3) == 0.2
    x, y = mx.nd.array([[1, 2], [3, 4]]), mx.nd.array([[0, 0], [3, 0]])
    assert checked_loss("squares")(x, y).asnumpy().tolist() == [5, 16]
    register_loss("one", lambda logits, target: logits.sum())
    with pytest.raises(InputError, match=r"one returned \(1,\), expected a value per image"):
        checked_loss("one")(x, y)
    register_optimizer("mine", lambda config: 1)
    with pytest.raises(InputError, match="returned a int, expected an mx"):
        make_optimizer(config, learning_rate=0.5)
    with pytest.raises(InputError, match="optimizer 'nag' is the package's own"):
        register_optimizer("nag", print)


def test_binary_cross_entropy_by_hand():
    logits, target = np.float64([[0.5, -1, 2]]), np.float64([[0.9, 0.05, 0.05]])
    p = 1 / (1 + np.exp(-logits))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum(axis=1)
    assert_close(checked_loss("bce")(mx.nd.array(logits), mx.nd.array(target)), expected, terms=3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.py", None, "--import gone.py: no such file"),
        ("no_such_module", None, "No module named 'no_such_module'"),
        ("bad.py", "import os\n1 / 0\n", r"bad.py: ZeroDivisionError: .*bad.py, line 2\)"),
        ("worse.py", "def\n", r"worse.py: SyntaxError: .*line"),
    ],
)
def test_modules_that_cannot_be_imported(name, text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if text:
        (tmp_path / name).write_text(text)
    assert main(["summary", "asymmnet_small", "--import", name]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def run_of(tmp_path, **changes):
    settings = dict(
        model="tiny_net", dataset="two", input_size=8, batch_size=8, num_epochs=1, warmup_epochs=0,
        save_dir=str(tmp_path), num_workers=1, save_frequency=0, lr=0.1, **changes,
    )  # fmt: skip
    return train(resolve(ClassifierConfig, settings))


def test_trained_in_process_evaluated_and_named_where_it_is_missing(tmp_path, capsys):
    module = tmp_path / "parts.py"
    module.write_text("# the test registers them\n")
    register_model("tiny_net", tiny)
    register_dataset("two", two_colours)
    result = run_of(tmp_path, imports=(str(module),), loss="bce", augmentation=("3-augment",))
    card = read_card(tmp_path / "two/tiny_net_baseline" / CARD_FILE)
    assert (card.imports, card.class_names) == ([str(module)], ["dark", "bright"])
    assert card.parameters == 8 * 27 + 8 + 2 * 8 + 2 * 8 + 2
    command = ["eval", "imagenet", result.run_dir, "--dataset", "two", "--json",
               str(tmp_path / "result.json")]  # fmt: skip
    assert main(command) == 0
    assert json.loads((tmp_path / "result.json").read_text())["top1"] == result.best
    del OWN_MODELS["tiny_net"], FAMILY_MODELS["tiny_net"]
    capsys.readouterr()
    assert main(command) == 2
    assert capsys.readouterr().err == (
        f"asymmnet eval: the model tiny_net comes from the module {module}: add --import {module}\n"
    )


@pytest.mark.thorough
def test_the_example_is_trained_killed_resumed_evaluated_and_exported(
    tmp_path, monkeypatch, capsys
):
    """From a folder outside the package, as a user would."""
    shutil.copy(ROOT / "examples/own_parts.py", tmp_path)
    assert len((tmp_path / "own_parts.py").read_text().splitlines()) <= 40
    monkeypatch.chdir(tmp_path)
    training = (
        "train --import own_parts.py --model plain_net --dataset digits --optimizer sign "
        "--lr 0.004 --augmentation invert --input-size 16 --num-epochs 3 --warmup-epochs 1 "
        "--checkpoint-steps 5 --num-workers 1 --save-dir"
    )

    def run(line, status=0):
        capsys.readouterr()
        found = main(line.split())
        printed = capsys.readouterr()
        assert found == status, printed.err
        return printed.err if status else printed.out

    process = subprocess.Popen([sys.executable, "-m", "gluon_asymmnet", *training.split(), "one"],
                               env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    deadline, folder = time.monotonic() + 120, "one/digits/plain_net_baseline"
    while not list(tmp_path.glob(f"{folder}/checkpoints/step-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "resumed from" in run(f"{training} one")
    run(f"{training} two")
    one, two = (mx.nd.load(f"{n}/digits/plain_net_baseline/last.params") for n in ("one", "two"))
    for name, array in one.items():
        np.testing.assert_array_equal(array.asnumpy(), two[name].asnumpy())
    own = "--import own_parts.py"
    evaluated = run(f"eval imagenet {folder} {own} --dataset digits --json result.json")
    assert "top-1" in evaluated
    assert json.loads((tmp_path / "result.json").read_text())["top1"] > 0.25
    run(f"export symbol {folder} symbol {own}")
    run(f"export onnx {folder} onnx {own}")
    assert "plain_net" in run(f"summary plain_net {own} --input-size 16")
    run(f"decompose {folder} small {own} --method weight-svd -m 1")
    assert "top-1" in run(f"eval imagenet small {own} --dataset digits")
    run(f"export onnx small smaller {own}")
    assert "not the weights of AsymmNet" in run(
        f"convert {folder}/best.params net.npz --to npz", status=2
    )
    assert "plain_net cannot be optimized: its blocks are not" in run(
        f"search plain_net {own} --out spec.json", status=2
    )
    for table in (OWN_MODELS, FAMILY_MODELS):
        del table["plain_net"]
    assert f"comes from the module own_parts.py: add {own}" in run(
        "export symbol small other", status=2
    )
    assert f"add {own}" in run(f"export symbol {folder} other", status=2)
    (tmp_path / "black.png").write_bytes(encode(np.zeros((8, 8, 3), np.uint8), ".png"))
    rows = {run(f"predict black.png --model {form} --top 1") for form in ("symbol", "onnx")}
    assert len(rows) == 1  # the graph is in the file, so that no module is needed
    assert "digit" in rows.pop()
