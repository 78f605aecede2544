"""Training from Python: ``gluon_asymmnet.train``."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

from gluon_asymmnet.errors import InputError, did_you_mean
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.utils.threads import set_threads

if TYPE_CHECKING:  # MXNet is loaded after the threads are set
    from gluon_asymmnet.train.loop import Result


def run(*, callbacks: Sequence[Callable] = (), **settings) -> "Result":
    """Train a classifier or, with ``network``, a detector; or resume the run of these settings.

    Args:
        callbacks: functions that are called with the row of each epoch after its validation, a
            dict as in ``Result.history``.  A run stops where one returns True; it can be resumed.
        settings: those of the command, by the names of its flags with ``_``:
            ``train(recipe="demo", rec_train="digits/train.rec", num_epochs=3)``.

    Returns: the run directory, best score and weights; its ``history`` has a dict per epoch.
    Raises: InputError, FormatError, RunError as the command prints them.
    """
    config_class = DetectorConfig if "network" in settings else ClassifierConfig
    names = [field.name for field in dataclasses.fields(config_class)]
    for name in settings:
        if name not in names:
            raise InputError(f"train has no setting {name!r}{did_you_mean(name, names)}")
    config = resolve(config_class, settings)
    set_threads(config.threads)
    if config_class is DetectorConfig:
        from gluon_asymmnet.train import detector

        return detector.train(config, callbacks=callbacks)
    from gluon_asymmnet.train import classifier

    return classifier.train(config, callbacks=callbacks)
