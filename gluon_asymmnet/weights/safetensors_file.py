"""Read and write safetensors files; errors are one line."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.extras import require

_DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32",
           "uint16", "uint8", "bool")  # fmt: skip
_MAX_REASON = 200  # characters; the library's messages quote names from the file


def read_safetensors(path) -> dict[str, np.ndarray]:
    """Read ``{name: array}``, sorted by name.

    Raises:
        FormatError: if the file is damaged, truncated, or has a dtype that NumPy lacks.
        OSError: if it cannot be read.
    """
    # From bytes: the library maps the files it opens, and a mapped file may change.
    data = Path(path).read_bytes()
    safetensors = _library()
    try:
        return dict(sorted(safetensors.numpy.load(data).items()))
    except KeyError as error:
        reason = f"NumPy has no dtype {error}"
    except (safetensors.SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())[:_MAX_REASON]
    raise FormatError(f"{path}: not a valid safetensors file: {reason}")


def write_safetensors(path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays.  Raises: InputError for a dtype that is not read back."""
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise InputError(f"{name!r} is {array.dtype}, expected one of {', '.join(_DTYPES)}")
    native = {
        name: np.asarray(array, array.dtype.newbyteorder("="), order="C")
        for name, array in arrays.items()
    }
    # From bytes: files that the library writes are readable by their owner only.
    Path(path).write_bytes(_library().numpy.save(native))


def _library():
    require("safetensors")
    import safetensors.numpy

    return safetensors
