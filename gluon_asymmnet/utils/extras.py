"""Optional libraries: check, import, and name the command that installs them."""

import importlib
import importlib.util

from gluon_asymmnet.errors import InputError

# library -> arguments of pip install
_INSTALLS = {
    "mxnet": "'gluon_asymmnet[mxnet]' (Linux; docs/install.md has GPUs and other systems)",
    "gluoncv": "'gluon_asymmnet[mxnet]'",
    "safetensors": "'gluon_asymmnet[mxnet]'",
    "onnx": "'gluon_asymmnet[onnx]'",
    "onnxruntime": "'gluon_asymmnet[onnx]'",
    "openvino": "'gluon_asymmnet[openvino]'",
    "ncnn": "'gluon_asymmnet[ncnn]'",
    "pnnx": "'gluon_asymmnet[ncnn]' (with PyTorch; `pip install --no-deps pnnx` is enough)",
    "nncf": "'gluon_asymmnet[int8]' (it needs Python 3.10 and NumPy 1.24)",
    "yaml": "pyyaml",
    "argcomplete": "'gluon_asymmnet[completion]'",
    "horovod": "'gluon_asymmnet[horovod]', after tools/build_horovod.sh",
}


def installed(library: str) -> bool:
    """Return whether a library is installed, without importing it."""
    return importlib.util.find_spec(library) is not None


def require(library: str) -> None:
    """Raise InputError with the command that installs a library, if it is missing."""
    if not installed(library):
        raise InputError(f"{library} is not installed: pip install {_INSTALLS[library]}")


def load_extra(library: str):
    """Import an optional library.  Raises: InputError if it is missing or broken."""
    require(library)
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise InputError(f"{library} does not import ({error}): reinstall it") from None
