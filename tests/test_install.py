"""The package as pip sees it: what the wheel needs and holds, and the Dockerfiles."""

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

from gluon_asymmnet.utils import doctor
from tests.conftest import ROOT

BASE = {"numpy", "opencv-python-headless", "tqdm"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the source, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "gluon_asymmnet", source / "gluon_asymmnet")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "-w", folder, source], check=True, capture_output=True,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def requirements(wheel):
    """Return {extra or "": names of distributions}."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("METADATA"))
        lines = BytesParser().parsebytes(archive.read(name)).get_all("Requires-Dist")
    found = {}
    for line in lines:
        extra = re.search(r"""extra == ['"]([\w-]+)""", line)
        found.setdefault(extra[1] if extra else "", set()).add(re.match(r"[\w-]+", line)[0].lower())
    return found


@pytest.mark.thorough
def test_the_base_is_what_prediction_needs_and_gpus_get_no_mxnet_of_the_cpu(wheel):
    found = requirements(wheel)
    assert found[""] == BASE
    assert found["mxnet"] - found["gpu"] == {"mxnet"}
    assert all("mxnet" in found[extra] for extra in ("demo", "demo-ssd", "dev", "test-all"))
    assert all("mxnet" not in found[extra] for extra in ("gpu", "onnx", "openvino", "serving"))


@pytest.mark.thorough
def test_the_wheel_predicts_without_anything_else(wheel, tmp_path):
    """All that its modules import at load, but for the base, is missing."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path)
    assert {"gluon_asymmnet/report/style.css"} <= set(names)
    assert any(name.startswith("gluon_asymmnet/export/web/site/") for name in names)
    others = ("mxnet", "gluoncv", "PIL", "matplotlib", "safetensors", "tensorboardX", "yaml",
              "onnx", "onnxruntime", "openvino", "torch", "sklearn", "scipy", "pandas")  # fmt: skip
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"for name in {others!r}: sys.modules[name] = None  # as if it were not installed\n"
        "import gluon_asymmnet; assert gluon_asymmnet.__file__.startswith(sys.path[0])\n"
        "gluon_asymmnet.Predictor, gluon_asymmnet.DetectorPredictor\n"
        "from gluon_asymmnet.cli import main\n"
        "assert main(['summary', 'asymmnet_small']) == 0\n"
        "assert main(['train', '--model', 'asymmnet_small', '--dry-run', '1']) == 2\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "mxnet is not installed: pip install 'gluon_asymmnet[mxnet]'" in done.stderr


@pytest.mark.parametrize(
    "file", sorted((ROOT / "docker").glob("*.Dockerfile")), ids=lambda p: p.name
)
def test_dockerfiles_copy_what_exists(file):
    copied = re.findall(r"^COPY (.+) \S+$", file.read_text(), re.M)
    assert copied
    assert all((ROOT / name).exists() for line in copied for name in line.split())
    needed = {"setup.py", "pyproject.toml", "README.md", "gluon_asymmnet"}
    assert needed <= {name for line in copied for name in line.split()}


@pytest.mark.thorough
def test_dockerfiles_pass_hadolint():
    files = [str(path) for path in (ROOT / "docker").glob("*.Dockerfile")]
    tool = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([str(tool), *files], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_processors_of_one_name_are_told_apart(tmp_path, monkeypatch):
    """Virtual machines show "AMD EPYC" for generations with and without AVX-512."""

    file = tmp_path / "cpuinfo"

    def told(family, model):
        lines = {"model name": "AMD EPYC", "cpu family": family, "model": model}
        monkeypatch.setattr(doctor, "_CPUINFO", file)
        file.write_text("".join(f"{key}\t: {value}\n" for key, value in lines.items()))
        return doctor.cpu_model()

    assert told(25, 1) == "AMD EPYC, family 25 model 1" != told(26, 2)


def test_doctor_finds_two_builds_of_mxnet_and_missing_cuda(monkeypatch):
    class Distribution:
        def __init__(self, name):
            self.metadata = {"Name": name}

    def installed(*names):
        listed = [Distribution(name) for name in names]
        monkeypatch.setattr(doctor.importlib.metadata, "distributions", lambda: listed)
        return doctor._gpu()

    assert installed("mxnet", "numpy") == []
    both = installed("mxnet", "mxnet-cu117")
    assert (both[0].ok, both[0].what) == (False, "mxnet and mxnet-cu117 overlap")
    assert "--no-deps mxnet-cu117==1.9.1" in both[0].mend
    assert installed("mxnet-cu112")[0].ok
    titles = [finding.what.split(" (")[0].split(":")[0] for finding in both[1:]]
    assert titles == ["CUDA 11", "cuDNN 8", "NCCL 2"]
