"""AsymmNet (arXiv:2104.07770) in MXNet/Gluon.

The public names are resolved when they are first used, so that what needs no MXNet does not
import it.
"""

import importlib

from gluon_asymmnet.utils.import_hook import when_imported

__version__ = "0.1.0"

_PUBLIC = {
    "get_model": "zoo",
    "list_models": "models.registry",
    "load_weights": "weights.load",
    "evaluate": "predict.evaluate",
    "Predictor": "predict",
    "DetectorPredictor": "predict.detector",
    "register_model": "models.registry",
    "register_optimizer": "train.optimizers",
    "register_schedule": "train.schedules",
    "register_loss": "train.losses",
    "register_augmentation": "data.augmentations",
    "register_dataset": "data.datasets",
    "InputError": "errors",
    "FormatError": "errors",
    "RunError": "errors",
}
_CALLABLE = ("train", "export")  # packages
__all__ = ["__version__", *_PUBLIC, *_CALLABLE]


def __getattr__(name: str):
    if name in _CALLABLE:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})


def _gluoncv_names():
    return importlib.import_module(f"{__name__}.gluoncv_names")


when_imported("gluoncv", lambda: _gluoncv_names().add(), lambda: _gluoncv_names().loadable())
