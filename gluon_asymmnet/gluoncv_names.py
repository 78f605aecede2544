"""Our names in GluonCV's ``get_model``.

``import gluon_asymmnet`` arranges that ``add`` is called when GluonCV is imported, before or after.
"""

import contextlib
import sys

from gluon_asymmnet.models.registry import list_models
from gluon_asymmnet.models.ssd_spec import list_detectors


def add() -> None:
    """Add the names of ``list_models`` and ``list_detectors`` that GluonCV does not have."""
    known = sys.modules["gluoncv.model_zoo.model_zoo"]._models
    for name in [*list_models(), *list_detectors()]:
        known.setdefault(name, _builder(name))


def _builder(name: str):
    def build(**settings):
        from gluon_asymmnet.zoo import get_model

        return get_model(name, **settings)

    build.__doc__ = f"Build {name} of gluon_asymmnet; settings as its ``get_model`` takes them."
    return build


@contextlib.contextmanager
def loadable():
    """Let GluonCV 0.10.5 load: with the names that NumPy removed, and without PyTorch 2."""
    from gluon_asymmnet._mxnet import without

    with without("torch"):
        yield
