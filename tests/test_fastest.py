import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from gluon_asymmnet.export.formats import export_all
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.predict.fastest import CACHE_FILE
from gluon_asymmnet.utils.cache import cache_folder
from tests.conftest import ROOT, run_python
from tests.floats import NET, assert_close
from tests.random_nets import random_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    made = random_model(tmp_path_factory.mktemp("made"))
    return export_all(made, made.weights.parent / "out", formats=("onnx", "openvino"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache file of an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gluon_asymmnet" / "engines.json"


def test_the_tests_leave_the_users_cache_alone(exported, tmp_path_factory):
    Predictor(exported)
    below = str(tmp_path_factory.getbasetemp())
    assert (cache_folder() / CACHE_FILE).is_file() and str(cache_folder()).startswith(below)
    code = "from gluon_asymmnet.utils.cache import cache_folder; print(cache_folder())"
    assert run_python("-c", code).stdout.startswith(below)


def test_the_faster_engine_is_measured_once(exported, cache):
    first = Predictor(exported, threads=1)
    assert first.reason.endswith(" for one image, measured now")
    (times,) = json.loads(cache.read_text()).values()
    assert [*times] == ["openvino", "onnxruntime"]
    assert first.engine == min(times, key=times.get)
    assert f"{first.engine} {1e3 * times[first.engine]:.2f} ms" in first.reason
    written = cache.read_bytes()
    again = Predictor(exported, threads=1)
    assert (again.engine, again.reason) == (first.engine, first.reason.replace("now", "earlier"))
    assert cache.read_bytes() == written
    other = next(name for name in times if name != first.engine)
    images = sample_images(2, 32)
    expected = Predictor(exported, other).predict(images)
    assert_close(first.predict(images), expected, terms=NET)
    Predictor(exported, threads=2)
    assert len(json.loads(cache.read_text())) == 2


def test_what_is_remembered_decides(exported, cache):
    Predictor(exported)
    ((key, _),) = json.loads(cache.read_text()).items()
    for times, engine in (([2.0, 1.0], "onnxruntime"), ([1.0, 2.0], "openvino")):
        remembered = dict(zip(("openvino", "onnxruntime"), times))
        cache.write_text(json.dumps({key: remembered}))
        predictor = Predictor(exported)
        assert (predictor.engine, predictor.weights.suffix) == (
            engine, {"onnxruntime": ".onnx", "openvino": ".xml"}[engine],
        )  # fmt: skip
        assert "openvino" in predictor.reason and "measured earlier" in predictor.reason


def test_a_damaged_cache_is_measured_anew(exported, cache):
    Predictor(exported)
    ((key, _),) = json.loads(cache.read_text()).items()
    entries = ('{"openvino": 1.0}', '{"openvino": 1.0, "onnxruntime": NaN}')
    for content in ("[" * 10_000, *(f'{{"{key}": {entry}}}' for entry in entries)):
        cache.write_text(content)
        assert "measured now" in Predictor(exported).reason
        assert [*json.loads(cache.read_text())] == [key]


def test_a_cache_that_cannot_be_written(exported, cache):
    cache.parent.write_text("a file in place of the folder")
    for _ in range(2):
        assert "measured now" in Predictor(exported).reason


def test_an_engine_that_fails_is_left_out_and_not_remembered(exported, cache, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "copied")
    (path,) = folder.glob("*.xml")
    path.write_text("<net ")
    predictor = Predictor(folder)
    assert predictor.engine == "onnxruntime"
    assert predictor.reason.startswith("openvino fails, onnxruntime ")
    assert not cache.exists()


def test_the_oldest_entries_are_dropped(exported, cache):
    cache.parent.mkdir()
    cache.write_text(json.dumps({str(i): {} for i in range(150)}))
    Predictor(exported)
    kept = [*json.loads(cache.read_text())]
    assert kept[:-1] == [str(i) for i in range(51, 150)]
    assert "measured earlier" in Predictor(exported).reason


@pytest.mark.thorough
def test_processes_at_once(exported, cache):
    code = (
        "import sys; from gluon_asymmnet.predict import Predictor\n"
        "for threads in (1, 2):\n"
        "    print(Predictor(sys.argv[1], threads=threads).engine)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, exported], cwd=ROOT, stdout=subprocess.PIPE)
        for _ in range(3)
    ]  # fmt: skip
    found = np.array([process.communicate()[0].split() for process in running])
    assert found.shape == (3, 2)
    assert [process.returncode for process in running] == [0, 0, 0]
    assert 1 <= len(json.loads(cache.read_text())) <= 2
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
