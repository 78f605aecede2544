"""The only module that touches NumPy's removed names and MXNet's import.

Everything else writes ``from gluon_asymmnet._mxnet import mx`` (or ``gluoncv``).
"""

import contextlib
import importlib
import os
import sys
import warnings

import numpy as np

from gluon_asymmnet.utils.extras import require

# Names that NumPy 1.24 to 2.x removed and that MXNet 1.9.1 or GluonCV 0.10.5 read while importing.
_ALIASES = {
    "bool": bool, "int": int, "float": float, "object": object, "complex": complex, "str": str,
    "bool8": np.bool_, "float_": np.float64, "unicode_": np.str_, "string_": np.bytes_,
    "PZERO": 0.0, "NZERO": -0.0, "PINF": np.inf, "NINF": -np.inf,
    "Inf": np.inf, "Infinity": np.inf, "infty": np.inf, "NaN": np.nan, "NAN": np.nan,
}  # fmt: skip
_RENAMED = {
    "product": "prod",
    "cumproduct": "cumprod",
    "sometrue": "any",
    "alltrue": "all",
    "round_": "round",
    "row_stack": "vstack",
    "trapz": "trapezoid",
    "in1d": "isin",
    "msort": "sort",
}
# Read once by mxnet/numpy/fallback.py and never called by us.
_FINANCIAL = ("mirr", "npv", "pmt", "ppmt", "pv", "rate")


def _missing(name: str):
    def removed(*_args, **_kwargs):
        raise AttributeError(
            f"numpy.{name} was removed from NumPy; use the numpy_financial package"
        )

    return removed


def restore_numpy_names() -> None:
    """Put back the names MXNet needs.  Leaves every name that NumPy still has alone."""
    present = vars(np)  # not hasattr: NumPy's module __getattr__ warns about the names we look for
    for name, value in _ALIASES.items():
        if name not in present:
            setattr(np, name, value)
    for name, new in _RENAMED.items():
        if name not in present and new in present:
            setattr(np, name, getattr(np, new))
    for name in _FINANCIAL:
        if name not in present:
            setattr(np, name, _missing(name))


def _quiet_import(name: str):
    if sys.modules.get(name) is None:
        require(name)
        restore_numpy_names()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    return sys.modules[name]


@contextlib.contextmanager
def without(name: str):
    """Make ``import name`` fail for a while: GluonCV refuses to load beside PyTorch 2."""
    there = sys.modules.pop(name, None)
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]
        if there is not None:
            sys.modules[name] = there


# One line on every symbol that is bound, otherwise.
os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")
mx = _quiet_import("mxnet")


def __getattr__(name: str):
    if name == "gluoncv":
        return _quiet_import("gluoncv")  # ``gluoncv_names`` hides PyTorch from it
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
