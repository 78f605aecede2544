"""Files for ncnn, run by its own library."""

import importlib.util
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import DetectorCard, read_card
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.transforms import validation_crop
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.agreement import compare_detections
from gluon_asymmnet.export.ncnn import HALF_LIMIT, export_ncnn
from gluon_asymmnet.export.onnx.export import LIMIT, export_onnx
from gluon_asymmnet.export.parity import compare, sample_images
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.predict.detector import DetectorPredictor
from gluon_asymmnet.saved import Saved, open_saved
from gluon_asymmnet.zoo import get_model
from tests.conftest import ROOT
from tests.odd_pictures import odd_pictures, photograph

pytest.importorskip("ncnn", reason="ncnn is not installed: make test-all installs it")
pytestmark = pytest.mark.thorough

STEM = "asymmnet_small_w0.35_r1"


@pytest.fixture(scope="module")
def exported(teacher_run, tmp_path_factory):
    return export_ncnn(open_saved(teacher_run), tmp_path_factory.mktemp("ncnn") / "out")


def test_both_precisions_agree_with_the_net(exported, teacher_run):
    images = sample_images(3, 48, seed=8)
    expected = open_saved(teacher_run).predict(images)
    single = compare(expected, Predictor(exported, "ncnn").predict(images))
    half = compare(expected, Predictor(exported / f"{STEM}.ncnn-fp16.param").predict(images))
    assert single.relative < LIMIT and 10 * single.relative < half.relative < HALF_LIMIT
    assert list(read_card(exported / "card.json").parity) == ["ncnn", "ncnn-fp16"]
    single, half = (exported / f"{STEM}{end}.bin" for end in (".ncnn", ".ncnn-fp16"))
    assert 1.9 < single.stat().st_size / half.stat().st_size < 2


def test_the_folder_and_its_engine(exported):
    ends = (".param", ".bin", "-fp16.param", "-fp16.bin")
    names = {"card.json", *(f"{STEM}.ncnn{end}" for end in ends)}
    assert {path.name for path in exported.iterdir()} == names
    predictor = Predictor(exported)
    assert (predictor.engine, predictor.weights.name) == ("ncnn", f"{STEM}.ncnn.param")
    (best,) = predictor.classify(odd_pictures()["jpeg-exif-6.jpg"], top=10)
    assert sorted(one.name for one in best) == list("0123456789")


def test_threads_share_a_predictor(exported):
    predictor = Predictor(exported, "ncnn", threads=1)
    batches = [sample_images(2, 48, seed=seed) for seed in range(12)]
    alone = [predictor.predict(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(predictor.predict, batches))
    np.testing.assert_array_equal(alone, together)
    assert len({logits.tobytes() for logits in alone}) == 12


def test_the_command(teacher_run, tmp_path, capsys):
    assert main(["export", "ncnn", str(teacher_run), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "ncnn: largest difference" in said and "ncnn-fp16: largest difference" in said


def test_a_detector(tmp_path):
    name = "ssd_300_asymmnet_small_0.35_custom"
    mx.random.seed(5)
    net = get_model(name, classes=["cat", "dog"])
    net.initialize(mx.init.Xavier(magnitude=2))
    net(mx.nd.zeros((1, 3, 300, 300)))
    model = Saved(DetectorCard(name, 300, ["cat", "dog"]), net, Path("net.params"))
    out = export_ncnn(model, tmp_path / "ncnn")
    by_onnx = DetectorPredictor(export_onnx(model, tmp_path / "onnx"), "onnxruntime")
    by_ncnn = DetectorPredictor(out)
    assert by_ncnn.engine == "ncnn"
    picture = photograph(400, 310)
    pairs = zip(by_onnx.detect(picture, 0), by_ncnn.detect(picture, 0))
    found = compare_detections(pairs, side=300)
    assert found.share > 0.95 and found.score_difference < 1e-3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda param, weights: param.write_bytes(b"no network"), "does not start with 7767517"),
        (lambda param, weights: param.write_text("7767517\nno network"), "is damaged"),
        (lambda param, weights: param.write_bytes(param.read_bytes()[:900]), "ncnn"),
        (lambda param, weights: weights.write_bytes(weights.read_bytes()[:-9000]), "is damaged"),
        (lambda param, weights: weights.write_bytes(b""), "is damaged"),
    ],
)
def test_damaged_files(exported, tmp_path, damage, message):
    folder = shutil.copytree(exported, tmp_path / "copy")
    damage(folder / f"{STEM}.ncnn.param", folder / f"{STEM}.ncnn.bin")
    with pytest.raises((FormatError, InputError), match=message):
        Predictor(folder, "ncnn")


def test_files_that_are_missing(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "copy")
    (folder / f"{STEM}.ncnn.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"\.ncnn\.bin: no such file"):
        Predictor(folder, "ncnn")
    with pytest.raises(InputError, match="precision bf16 is for openvino"):
        Predictor(exported, "ncnn", precision="bf16")
    with pytest.raises(InputError, match=r"holds nothing for ncnn.*export ncnn"):
        Predictor(tmp_path, "ncnn")


def test_without_pnnx(teacher_run, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "pnnx" else found(name)
    )
    with pytest.raises(InputError, match="pnnx is not installed: pip install"):
        export_ncnn(open_saved(teacher_run), tmp_path / "out")


def test_the_example_in_cpp(exported, tmp_path):
    """Compiled against ncnn's own headers and library, in NCNN_ROOT; the wheel has none."""
    root = os.environ.get("NCNN_ROOT")
    if not root or not shutil.which("c++"):
        pytest.skip("needs a C++ compiler, and NCNN_ROOT, an installation of ncnn with headers")
    program, picture = tmp_path / "classify", tmp_path / "crop.ppm"
    subprocess.run(
        ["c++", "-std=c++11", "-O1", "-fopenmp", f"-I{root}/include/ncnn", "-o", program,
         ROOT / "examples/ncnn_classify.cpp", f"-L{root}/lib", "-lncnn"], check=True,
    )  # fmt: skip
    predictor, rgb = Predictor(exported, "ncnn"), photograph(300, 200)
    card = predictor.card
    crop = validation_crop(rgb, card.input_size, card.crop_ratio)
    picture.write_bytes(b"P6 48 48 255\n" + crop.tobytes())
    done = subprocess.run(
        [program, exported / f"{STEM}.ncnn.param", exported / f"{STEM}.ncnn.bin", picture,
         *map(str, (*card.rgb_mean, *card.rgb_std))], capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = np.loadtxt(done.stdout.splitlines(), dtype=np.float32)[:, 1]
    expected = predictor.predict(card.preprocessing(rgb)[None])
    assert compare(expected, found[None]).relative < LIMIT
