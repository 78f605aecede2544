"""Check the installation and describe the machine."""

import ctypes
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Optional

from gluon_asymmnet import __version__
from gluon_asymmnet.utils.extras import installed
from gluon_asymmnet.utils.threads import SETTINGS, available

_PACKAGES = (
    "mxnet", *(f"mxnet-cu{n}" for n in range(112, 118)), "gluoncv", "numpy", "opencv-python",
    "opencv-python-headless", "simplejpeg", "tensorboardX",
    "matplotlib", "pillow", "safetensors", "scikit-learn", "onnx", "onnxruntime", "openvino",
    "nncf", "torch",
)  # fmt: skip
_CPUINFO = Path("/proc/cpuinfo")
# Instruction sets that decide how fast the engines are.
_CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


class Finding(NamedTuple):
    """The result of one check."""

    ok: bool
    what: str
    mend: str = ""
    needed: bool = True  # False: an extra


def environment() -> dict:
    """Return versions, processor and threads; runs and benchmarks store them."""
    return {
        "gluon_asymmnet": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: v for name in _PACKAGES if (v := version(name))},
        "cpu": cpu_model(),
        "cpu_features": cpu_features(),
        "processors": available(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "variables": {name: os.environ.get(name) for name in SETTINGS},
    }


def cpu_features() -> list[str]:
    """Return the relevant instruction sets of the processor (Linux; elsewhere none)."""
    flags = set(re.findall(r"\w+", _cpuinfo("flags")))
    return [flag for flag in _CPU_FLAGS if flag in flags]


def diagnose() -> list[Finding]:
    """Check everything that this package needs or can use."""
    return [_python(), *_required(), *_training(), *_optional(), *_gpu(), _shadowing()]


def _python() -> Finding:
    version = sys.version_info[:2]
    return Finding(
        (3, 9) <= version <= (3, 12),
        f"Python {platform.python_version()}",
        "MXNet 1.9.1 installs on Python 3.9 to 3.12; prediction runs on newer ones, too",
        needed=False,
    )


def _required() -> list[Finding]:
    opencv = version("opencv-python-headless") or version("opencv-python")
    wheel = "opencv-python-headless" + (f"=={opencv}" if opencv else "")
    libgl = f"pip install --no-deps --force-reinstall {wheel} (the plain wheel needs libGL)"
    return [_import("numpy", "NumPy", "pip install numpy"), _import("cv2", "OpenCV", libgl)]


def _training() -> list[Finding]:
    extra = "pip install 'gluon_asymmnet[mxnet]'"
    tried = (
        ("mxnet", "MXNet", extra),
        ("gluoncv", "GluonCV", extra),
        ("tensorboardX", "tensorboardX", extra),
    )
    wanted = installed("mxnet")  # this is not an installation for prediction alone
    return [_import(*one)._replace(needed=wanted) for one in tried]


def _optional() -> list[Finding]:
    tried = (
        ("sklearn", "scikit-learn (demo data)", "pip install 'gluon_asymmnet[demo]'"),
        ("onnx", "ONNX (export)", "pip install 'gluon_asymmnet[onnx]'"),
        ("onnxruntime", "ONNX Runtime (engine)", "pip install 'gluon_asymmnet[onnx]'"),
        ("openvino", "OpenVINO (engine)", "pip install 'gluon_asymmnet[openvino]'"),
    )
    return [_import(*one)._replace(needed=False) for one in tried]


def _gpu() -> list[Finding]:
    """Check what an MXNet for GPUs loads; none is installed: nothing."""
    builds = [
        name for d in importlib.metadata.distributions()
        if re.fullmatch(r"mxnet(-cu\d+)?", name := (d.metadata["Name"] or "").lower())
    ]  # fmt: skip
    if not any("-cu" in name for name in builds):
        return []
    gpu = next(name for name in builds if "-cu" in name)
    single = Finding(
        len(builds) == 1,
        f"{gpu} is the only MXNet" if len(builds) == 1 else f"{' and '.join(builds)} overlap",
        f"pip uninstall -y {' '.join(builds)} && pip install --no-deps {gpu}==1.9.1",
    )
    wanted = (
        ("libcudart.so.11.0", "CUDA 11", "install the CUDA 11 runtime"),
        (
            "libcudnn.so.8",
            "cuDNN 8",
            "install cuDNN 8 for CUDA 11, or pip install nvidia-cudnn-cu11",
        ),
        ("libnccl.so.2", "NCCL 2", "install NCCL 2 for CUDA 11, or pip install nvidia-nccl-cu11"),
    )
    return [single, *(_library(*one) for one in wanted)]


def _library(file: str, title: str, mend: str) -> Finding:
    try:
        ctypes.CDLL(file)
    except OSError as error:
        return Finding(False, f"{title}: {error}", f"{mend}, and add it to LD_LIBRARY_PATH")
    return Finding(True, f"{title} ({file})")


def _import(module: str, title: str, mend: str) -> Finding:
    """Import a module in a process of its own, which a broken library may crash."""
    line = {
        "mxnet": "from gluon_asymmnet._mxnet import mx as mxnet",
        "gluoncv": "from gluon_asymmnet._mxnet import gluoncv",
    }.get(module, f"import {module}")
    code = f"{line}; print(getattr({module}, '__version__', ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Finding(False, f"{title}: {reason}", mend)
    return Finding(True, f"{title} {done.stdout.strip()}")


def _shadowing() -> Finding:
    """Check for MXNet's own folder on the path, which hides the module ``operator``."""
    shadow = [
        p for p in sys.path if p and Path(p, "operator.py").exists() and Path(p, "gluon").exists()
    ]
    return Finding(
        not shadow,
        "no folder hides the standard library" if not shadow else f"{shadow[0]} hides modules",
        "do not start Python inside MXNet's own folder",
    )


def version(package: str) -> Optional[str]:
    """Return the version of an installed package, else None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """Return the name of the processor, on x86 with family and model.

    A virtual machine may tell the maker only: "AMD EPYC" is six generations, with and without
    AVX-512.
    """
    name = _cpuinfo("model name") or platform.processor()
    numbers = _cpuinfo("cpu family"), _cpuinfo("model")
    return f"{name}, family {numbers[0]} model {numbers[1]}" if all(numbers) else name


def _cpuinfo(key: str) -> str:
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return ""
    match = re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1] if match else ""
