"""``precision="auto"``: bf16 and int8 only if allowed, and with the accuracy measured at export."""

import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pytest

from gluon_asymmnet import DetectorPredictor
from gluon_asymmnet.card import read_card
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.export import accuracy
from gluon_asymmnet.export.formats import export_all
from gluon_asymmnet.export.int8 import quantizers
from gluon_asymmnet.export.int8.export import export_int8
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.predict import Predictor, choice
from gluon_asymmnet.train.distillation import open_teacher
from gluon_asymmnet.utils.doctor import cpu_model
from tests.conftest import with_damaged_record
from tests.random_nets import random_detector, random_model
from tests.test_detection_records import LABEL, write_rec

NAMES = [str(number) for number in range(10)]  # of the demo set
BF16 = {"measure": "top-1", "value": 0.752, "images": 5000, "f32": 0.754}
LABELS = ["openvino", "onnxruntime", "openvino bf16", "onnxruntime int8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run leaves, of a net for the digits."""
    folder = tmp_path_factory.mktemp("run")
    made = random_model(folder, classes=10, class_names=NAMES, crop_ratio=1.0)
    made.net.save_parameters(str(folder / "best.params"))
    made.card.save(folder / "card.json")
    return made._replace(weights=folder / "best.params")


@pytest.fixture(scope="module")
def exported(run, digits, tmp_path_factory):
    """The net in every form, with its int8 in the folder ``int8``."""
    out = export_all(run, tmp_path_factory.mktemp("exported") / "all")
    with pytest.MonkeyPatch.context() as patched:  # one part to search, for speed
        patched.setattr(quantizers, "find_parts", lambda model, card: {"stem": ".*stem.*"})
        export_int8(
            run, out / "int8", sample_images(16, 32), validation=open_source(rec=digits.val),
            max_loss=100, threads=1,
        )  # fmt: skip
    return out


@pytest.fixture
def folder(exported, tmp_path, monkeypatch):
    """A copy whose bf16 was measured, on a processor that computes in bf16; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choice, "computes_bf16", lambda: True)
    copied = shutil.copytree(exported, tmp_path / "copied")
    set_accuracy(copied, {"openvino bf16": BF16})
    return copied


def set_accuracy(folder, content) -> None:
    path = folder / "card.json"
    dataclasses.replace(read_card(path), accuracy=content).save(path)


def cache(folder):
    return folder.parent / "gluon_asymmnet" / "engines.json"


def remember(folder, fastest: str) -> None:
    """Let the one entry of the cache say which candidate is the fastest."""
    ((key, times),) = json.loads(cache(folder).read_text()).items()
    times = {label: 0.0012 if label == fastest else 0.0034 for label in times}
    cache(folder).write_text(json.dumps({key: times}))


def auto(folder, allow=("bf16", "int8"), **settings):
    return Predictor(folder, precision="auto", allow=allow, **settings)


def test_what_export_int8_measured(exported, run, digits):
    card = read_card(exported / "int8" / "card.json")
    found = card.accuracy_in("onnxruntime int8")
    source = open_source(rec=digits.val)
    settings = dict(classes=10, preprocessing=card.preprocessing)
    in_int8 = evaluate(Predictor(exported / "int8", "onnxruntime").predict, source, **settings)
    assert (found.measure, found.images, found.processor) == ("top-1", 449, cpu_model())
    assert found.value == pytest.approx(in_int8.top1)
    assert found.f32 == pytest.approx(evaluate(run.predict, source, **settings).top1)
    assert read_card(exported / "card.json").accuracy is None  # not measured


@pytest.mark.parametrize("label", LABELS)
def test_the_fastest_allowed_one_is_taken(folder, label):
    first = auto(folder)
    (times,) = json.loads(cache(folder).read_text()).values()
    assert [*times] == LABELS
    assert f"{first.engine} {first.precision}".removesuffix(" f32") == min(times, key=times.get)
    remember(folder, label)
    found = auto(folder)
    engine, _, precision = label.partition(" ")
    assert (found.engine, found.precision) == (engine, precision or "f32")
    in_int8 = precision == "int8"
    assert found.weights.parent == (folder / "int8" if in_int8 else folder)
    assert found.card == read_card(folder / "card.json")
    exact = Predictor(
        folder / "int8" if in_int8 else folder, engine, precision=precision.replace("int8", "")
        or "f32",
    )  # fmt: skip
    for count in (0, 1, 3, 33):
        images = sample_images(count or 1, 32, seed=count)[:count]
        np.testing.assert_array_equal(found.predict(images), exact.predict(images))


def test_the_line_that_says_it(folder, digits, capsys):
    picture = next((digits.root / "images/val/3").iterdir())
    auto(folder)
    remember(folder, "openvino bf16")
    flags = ["--precision", "auto", "--allow", "bf16,int8"]
    (xml,) = folder.glob("*.xml")
    expected = (
        f"engine: openvino bf16, {xml} (openvino 3.40 ms, onnxruntime 3.40 ms, openvino bf16 1.20 "
        f"ms, onnxruntime int8 3.40 ms for one image, measured earlier; top-1 75.20 % (f32 75.40 "
        f"%, 5,000 images))"
    )
    out = folder / "found.json"
    command = ["predict", str(picture), "--model", str(folder), "--json", str(out), *flags]
    assert main(command) == 0
    assert capsys.readouterr().err.splitlines() == [expected]
    written = json.loads(out.read_text())
    assert (written["engine"], written["precision"]) == ("openvino", "bf16")
    assert main(["eval", "imagenet", str(folder), "--rec-val", str(digits.val), *flags]) == 0
    assert expected in capsys.readouterr().err.splitlines()


def test_agreement_on_another_processor_in_the_line(folder):
    entry = {"measure": "agreement", "value": 0.9921875, "images": 128, "processor": "Intel 8086"}
    set_accuracy(folder, {"openvino bf16": entry})
    auto(folder, "bf16")
    remember(folder, "openvino bf16")
    assert auto(folder, "bf16").reason.endswith(
        "; agreement 99.22 % (128 images), measured on Intel 8086"
    )


def test_without_permission_it_is_f32(folder):
    auto(folder)
    remember(folder, "openvino bf16")
    for settings in (dict(precision="auto"), dict(precision="auto", allow=""), {}):
        found = Predictor(folder, **settings)
        assert found.precision == "f32"
        assert "bf16" not in found.reason
    assert "openvino bf16 3.40 ms" not in auto(folder, "int8").reason
    entries = [[*times] for times in json.loads(cache(folder).read_text()).values()]
    assert entries == [LABELS, LABELS[:2], [*LABELS[:2], LABELS[3]]]


def test_the_order_does_not_matter(folder):
    auto(folder, "int8, bf16")
    for allow in ("bf16,int8", ["int8", "bf16"], ("bf16", "int8", "bf16")):
        assert "measured earlier" in auto(folder, allow).reason
    assert len(json.loads(cache(folder).read_text())) == 1


def test_the_content_of_the_files_counts(folder):
    settings = dict(precision="auto", allow="bf16,int8")
    auto(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert "measured earlier" in choice.choose(moved, **settings).reason
    for pattern, old, new in (("int8/*.onnx", b"bilinear", b"BILINEAR"), ("*.bin", b"\0", b"\1")):
        (file,) = moved.glob(pattern)
        status, data = file.stat(), file.read_bytes()
        file.write_bytes(data.replace(old, new, 1))
        assert file.read_bytes() != data
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert "measured now" in choice.choose(moved, **settings).reason
    choice.choose(moved, threads=1, **settings)
    assert len(json.loads(cache(moved).read_text())) == 4


def test_export_made_again(folder, run):
    """The folder has to be removed first, and what is in ``int8`` goes with it."""
    auto(folder)
    shutil.rmtree(folder)
    export_all(run, folder)
    with pytest.raises(InputError, match="the accuracy of bf16 is not measured"):
        auto(folder)
    with pytest.raises(InputError, match="int8: the accuracy of int8 is not measured"):
        auto(folder, "int8")
    assert auto(folder, ()).precision == "f32"


def test_int8_of_another_model(folder):
    path = folder / "int8" / "card.json"
    dataclasses.replace(read_card(path), input_size=64).save(path)
    with pytest.raises(FormatError, match=r"another model than .*: input_size 32 and 64"):
        auto(folder)


def test_a_precision_that_cannot_be_taken_is_said(folder, monkeypatch):
    monkeypatch.setattr(choice, "computes_bf16", lambda: False)
    found = auto(folder)
    assert found.reason.endswith("; no bf16: this processor does not compute in it")
    assert "openvino bf16" not in found.reason
    monkeypatch.setattr(choice, "installed", lambda library: library != "openvino")
    found = auto(folder)
    assert found.engine == "onnxruntime"
    assert found.reason.endswith("; no bf16: openvino is not installed")
    monkeypatch.setattr(choice, "installed", lambda library: library == "mxnet")
    found = auto(folder)
    assert (found.engine, found.precision) == ("mxnet", "f32")
    assert found.reason == (
        "the first that fits; no bf16: openvino is not installed; no int8: onnxruntime is not "
        "installed"
    )


def test_one_engine_in_several_precisions(folder):
    assert [auto(folder, "bf16", engine="openvino").engine] == ["openvino"]
    auto(folder, "int8", engine="onnxruntime")
    entries = [[*times] for times in json.loads(cache(folder).read_text()).values()]
    assert entries == [["openvino", "openvino bf16"], ["onnxruntime", "onnxruntime int8"]]
    with pytest.raises(InputError, match=r"`asymmnet export int8 RUN .* --engine openvino` "):
        auto(folder, "int8", engine="openvino")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(precision="auto", allow="fp16"), "only bf16 and int8 can be allowed, got 'fp16'"),
        (dict(precision="auto", allow=["f32"]), "only bf16 and int8 can be allowed, got 'f32'"),
        (dict(allow="bf16"), "goes with precision auto, got precision f32"),
        (dict(precision="bf16", allow="int8"), "goes with precision auto, got precision bf16"),
        (dict(precision="auto", allow="bf16", engine="mxnet"), "bf16 is for openvino; mxnet comp"),
        (dict(precision="auto", allow="int8", engine="opencv"), "int8 is for openvino and onnxrun"),
    ],
)
def test_refused(exported, settings, message):
    with pytest.raises(InputError, match=message):
        Predictor(exported, **settings)


def test_refused_without_a_measured_accuracy(folder, run, digits, capsys):
    measures_bf16 = r"`asymmnet export openvino RUN OUT --bf16 --rec-val FILE` writes the files and"
    set_accuracy(folder, None)
    for path in (folder, next(folder.glob("*.onnx")), run.weights.parent):
        with pytest.raises(InputError, match=f"accuracy of bf16 is not measured: {measures_bf16}"):
            auto(path, "bf16")
    set_accuracy(folder / "int8", None)  # as version 0.1.0 wrote it
    place = re.escape(str(folder / "int8"))
    measures_int8 = f"`asymmnet export int8 RUN {place} --rec-calib FILE --rec-val FILE` writes"
    with pytest.raises(InputError, match=f"{place}: the accuracy of int8 .*: {measures_int8}"):
        auto(folder, "int8")
    flags = ["--precision", "auto", "--allow", "int8"]
    assert main(["predict", str(digits.root / "images/val/3"), "--model", str(folder), *flags]) == 2
    assert "the accuracy of int8 is not measured" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r"card\.json: no such file"):
        (folder / "card.json").unlink()
        auto(folder, "bf16")


def test_int8_itself(exported):
    with pytest.raises(InputError, match="is in int8 itself: name the folder that has it as int8/"):
        auto(exported / "int8", "int8")


@pytest.mark.parametrize("entry", [7, {}, {**BF16, "value": "much"}, {**BF16, "more": 1}])
def test_a_damaged_accuracy(folder, entry):
    set_accuracy(folder, {"openvino bf16": entry})
    with pytest.raises(FormatError, match="the accuracy of openvino bf16 in the card"):
        auto(folder, "bf16")


def test_a_teacher_is_the_first_engine_that_fits(folder):
    """A resumed run has the same teacher, whatever was measured in between."""
    auto(folder)
    remember(folder, "onnxruntime int8")
    from gluon_asymmnet._mxnet import mx

    images = sample_images(2, 32)
    found = open_teacher(folder, [mx.cpu()])(mx.nd.array(images), read_card(
        folder / "card.json").normalization)  # fmt: skip
    expected = Predictor(folder, "openvino").predict(images)
    np.testing.assert_array_equal(found.asnumpy(), expected)
    assert len(json.loads(cache(folder).read_text())) == 1


# ------------------------------------------------------------------------- measuring bfloat16


@pytest.fixture
def processor_with_bf16(monkeypatch):
    """OpenVINO computes in f32 where the processor has no bf16; the measurement is the same."""
    monkeypatch.setattr(accuracy, "computes_bf16", lambda: True)


def test_export_measures_bf16(run, digits, tmp_path, capsys, processor_with_bf16):
    damaged = with_damaged_record(digits.val, tmp_path / "damaged.rec", 5)
    command = ["export", "openvino", run.weights.parent, tmp_path / "out", "--bf16", "--rec-val"]
    command = [str(word) for word in command]
    assert main([*command, str(digits.val)]) == 0
    card = read_card(tmp_path / "out" / "card.json")
    found = card.accuracy_in("openvino bf16")
    source, settings = open_source(rec=digits.val), dict(preprocessing=card.preprocessing)
    for value, precision in ((found.f32, "f32"), (found.value, "bf16")):
        predictor = Predictor(tmp_path / "out", "openvino", precision=precision)
        expected = evaluate(predictor.predict, source, classes=10, **settings)
        assert value == pytest.approx(expected.top1)
    assert (found.measure, found.images) == ("top-1", 449)
    assert f"openvino bf16: {found}\n" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "out")
    assert main([*command, str(damaged)]) == 2
    assert "--max-bad-records N allows N such" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, str(damaged), "--max-bad-records", "1"]) == 0
    assert "1 of 449 images left out" in capsys.readouterr().out
    assert read_card(tmp_path / "out" / "card.json").accuracy_in("openvino bf16").images == 448


@pytest.mark.thorough
def test_export_measures_agreement_without_labels(run, digits, tmp_path, processor_with_bf16):
    command = ["export", "all", run.weights.parent, tmp_path / "out", "--bf16"]
    command += ["--calib-dir", digits.root / "images/val/3", "--images", "20"]
    assert main([str(word) for word in command]) == 0
    found = read_card(tmp_path / "out" / "card.json").accuracy_in("openvino bf16")
    assert (found.measure, found.images, found.f32) == ("agreement", 20, None)
    assert 0.8 <= found.value <= 1


def test_export_refuses(run, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(accuracy, "computes_bf16", lambda: False)
    val, photos = ["--rec-val", digits.val], ["--calib-dir", digits.root / "images/val/3"]
    for flags, message in (
        (["--bf16", *val], "the accuracy of bf16 is measured on a processor that computes in it"),
        (["--bf16"], "--bf16 takes --rec-val or --calib-dir, one of them"),
        (["--bf16", *val, *photos], "--bf16 takes --rec-val or --calib-dir, one of them"),
        (photos, "--calib-dir goes with --bf16"),
    ):
        command = ["export", "openvino", run.weights.parent, tmp_path / "out", *flags]
        assert main([str(word) for word in command]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="bf16 is OpenVINO's, which is not among the formats"):
        export_all(run, tmp_path / "out", formats=("onnx",), bf16=sample_images(16, 32))


def test_what_is_exported_again_was_not_measured(folder, tmp_path):
    from gluon_asymmnet.saved import open_saved

    again = export_all(open_saved(folder), tmp_path / "again", formats=("openvino",))
    assert read_card(again / "card.json").accuracy is None


@pytest.mark.thorough
def test_a_detector(tmp_path, monkeypatch, capsys, processor_with_bf16):
    monkeypatch.setattr(choice, "computes_bf16", lambda: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = random_detector(
        tmp_path / "run", "ssd_300_asymmnet_small_0.35_custom", sample_images(2, 300)
    )
    rec = write_rec(tmp_path, LABEL, LABEL)
    command = ["export", "openvino", run, tmp_path / "out", "--bf16", "--rec-val", rec]
    assert main([str(word) for word in command]) == 0
    found = read_card(tmp_path / "out" / "card.json").accuracy_in("openvino bf16")
    assert (found.measure, found.images) == ("mAP", 2)
    predictor = DetectorPredictor(tmp_path / "out", precision="auto", allow="bf16")
    assert predictor.reason.startswith("openvino ") and ", openvino bf16 " in predictor.reason
    with pytest.raises(InputError, match="int8 is for classifiers"):
        DetectorPredictor(tmp_path / "out", precision="auto", allow="int8")
    flags = ["--precision", "auto", "--allow", "bf16"]
    capsys.readouterr()
    command = ["eval", "voc", tmp_path / "out", "--val-splits", rec, "--json", "-", *flags]
    assert main([str(word) for word in command]) == 0
    out, err = capsys.readouterr()
    assert ", openvino bf16 " in err
    read = json.loads(out)
    assert (read["engine"], read["precision"]) == ("openvino", predictor.precision)
    figure = found.value if predictor.precision == "bf16" else found.f32
    assert read["original_pixels"]["mean_ap_11_point"] == pytest.approx(figure)
