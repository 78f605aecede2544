"""Fixtures that several test modules share."""

import functools
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

# One thread: sums are added in one order, so equal runs give equal bits.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).parent.parent
USER_CACHE = os.environ.get("XDG_CACHE_HOME", "")  # "": ~/.cache

if not importlib.util.find_spec("torch"):  # make test does without
    collect_ignore = [
        f"test_{name}.py"
        for name in ("convert", "litert", "torch", "torch_detector", "weight_files")
    ]


def run_python(*arguments, cwd=None, timeout=300, **environment):
    """Run a script or module of the project in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
        timeout=timeout, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


def thorough_but(cases, *quick):
    """Return cases for ``parametrize``: all but those at the positions ``quick`` are thorough."""
    cases = list(cases)
    kept = {position % len(cases) for position in quick}
    return [
        case if i in kept
        else pytest.param(*case if type(case) is tuple else [case], marks=pytest.mark.thorough)
        for i, case in enumerate(cases)
    ]  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory):
    """The user's cache as links, but for the speeds of engines, which are those of the session."""
    from gluon_asymmnet.predict.fastest import CACHE_FILE
    from gluon_asymmnet.utils.cache import cache_folder

    own = cache_folder()
    folder = tmp_path_factory.mktemp("cache")
    (folder / own.name).mkdir()
    for place, name in ((own, own.name), (own.parent, "")):
        for entry in place.iterdir() if place.is_dir() else ():
            if entry not in (own, own / CACHE_FILE):
                (folder / name / entry.name).symlink_to(entry)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(folder))
        yield


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory):
    """Where the browser's screenshots go: $SCREENSHOTS, or a scratch folder."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pytest_terminal_summary(terminalreporter, config):
    if config.option.markexpr.startswith("not thorough"):
        terminalreporter.line(
            "left out: more networks, commands and workers, and what needs PyTorch (make test-all)"
        )


def with_damaged_record(rec, out, damaged):
    """Write ``rec`` to ``out`` with a record whose image cannot be read; return ``out``."""
    from gluon_asymmnet.data.records.writer import RecordWriter
    from gluon_asymmnet.data.sources import open_source

    source = open_source(rec=rec)
    with RecordWriter(out) as writer:
        for i in range(len(source)):
            record = source.read(i)
            writer.write(i, record.label, b"no image" if i == damaged else record.image)
    return out


def free_port():
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The demo set: train.rec (1,348) and val.rec (449), 32 pixels."""
    from gluon_asymmnet.data.digits import write_digits

    return write_digits(tmp_path_factory.mktemp("demo") / "digits")


GREY = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)  # mean and deviation unlike ImageNet's


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory):
    """What a run leaves, of a net for the digits with another normalisation and input size."""
    from gluon_asymmnet._mxnet import mx
    from gluon_asymmnet.card import ClassifierCard
    from gluon_asymmnet.train.checkpoint import net_arrays
    from gluon_asymmnet.weights.params_file import write_params
    from gluon_asymmnet.zoo import get_model

    folder = tmp_path_factory.mktemp("teacher")
    net = get_model("asymmnet_small", width=0.35, classes=10)
    mx.random.seed(3)
    net.initialize(mx.init.MSRAPrelu())
    with mx.autograd.train_mode():  # statistics that are not 0 and 1
        for _ in range(20):
            net(mx.nd.random.normal(shape=(8, 3, 48, 48))).wait_to_read()
    write_params(folder / "best.params", net_arrays(net))
    ClassifierCard(
        model="asymmnet_small", width=0.35, classes=10, class_names=list("0123456789"),
        input_size=48, rgb_mean=GREY[0], rgb_std=GREY[1],
    ).save(folder / "card.json")  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def boxes(tmp_path_factory):
    """Twelve pictures with digits for training, five for validation, as VOC's folders."""
    from gluon_asymmnet.data.boxes.digits import write_digits_voc

    return write_digits_voc(tmp_path_factory.mktemp("voc") / "digits", images=(12, 5)).root


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Pictures of odd sizes: digits, larger and smaller than the input, and two photographs."""
    import numpy as np
    from sklearn.datasets import load_sample_image

    from gluon_asymmnet.data.boxes.digits import write_digits_voc
    from gluon_asymmnet.data.images import encode

    folder = tmp_path_factory.mktemp("photos")
    digits = write_digits_voc(folder / "voc", images=(3, 1), size=(211, 397))
    paths = sorted((digits.root / "VOC2007/JPEGImages").glob("*.jpg"))
    for name, part in (("china", np.s_[:, :]), ("flower", np.s_[5:222, 7:618])):
        rgb = load_sample_image(f"{name}.jpg")[part]
        paths.append(folder / f"{name}.jpg")
        paths[-1].write_bytes(encode(np.ascontiguousarray(rgb)))
    return paths


DETECTORS = (
    "ssd_300_asymmnet_small_0.35_custom",
    "ssdlite_320_asymmnet_large_0.35_custom",
    "ssdlite_300_mobilenetv3_small_0.5_custom",
)


@pytest.fixture(scope="session")
def detectors(photos, tmp_path_factory):
    """Make a run and what is exported of it, once for each name."""
    from gluon_asymmnet.export.formats import export_all
    from gluon_asymmnet.saved import open_saved
    from tests.random_nets import network_input, random_detector

    @functools.cache
    def make(name):
        folder, size = tmp_path_factory.mktemp("nets"), int(name.split("_")[1])
        run = random_detector(folder / "run", name, network_input(photos, size))
        return run, export_all(open_saved(run), folder / "out")

    return make


@pytest.fixture(scope="session", params=DETECTORS)
def each_detector(request, detectors):
    """Each of them: the folders of its run and of what is exported."""
    return detectors(request.param)


@pytest.fixture(scope="session")
def detector(detectors):
    """The first of them, where one is enough."""
    return detectors(DETECTORS[0])


@pytest.fixture
def detector_copy(detector, tmp_path):
    """A copy of the exported folder, to spoil."""
    return shutil.copytree(detector[1], tmp_path / "copied")


@pytest.fixture
def rec(tmp_path):
    """Six JPEGs, keys 10 to 15, labels 0 1 2 0 1 2."""
    from gluon_asymmnet.data.records.writer import RecordWriter
    from tests.record_files import jpeg

    with RecordWriter(tmp_path / "six.rec") as writer:
        for i in range(6):
            writer.write(10 + i, i % 3, jpeg(i))
    return tmp_path / "six.rec"
