"""Libraries that not everybody needs: what is there, and what installs the rest."""

import importlib
import importlib.util

from gluon_asymmnet.errors import InputError

# library -> what pip has to install
_INSTALLS = {
    "mxnet": "mxnet==1.9.1",
    "onnx": "'gluon_asymmnet[onnx]'",
    "onnxruntime": "'gluon_asymmnet[onnx]'",
    "openvino": "'gluon_asymmnet[openvino]'",
    "nncf": "'gluon_asymmnet[int8]' (it needs Python 3.10 and NumPy 1.24)",
    "horovod": "'gluon_asymmnet[horovod]', after tools/build_horovod.sh",
}


def installed(library: str) -> bool:
    """Say whether a library is there, without importing it."""
    return importlib.util.find_spec(library) is not None


def require(library: str) -> None:
    """Raise InputError that says what installs a library, if it is missing."""
    if not installed(library):
        raise InputError(f"{library} is not installed: pip install {_INSTALLS[library]}")


def load_extra(library: str):
    """Import a library of an extra.  Raises InputError, also if it is there and broken."""
    require(library)
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise InputError(f"{library} does not import ({error}): reinstall it") from None
