"""Base class of the training tasks: network, trainer, average of the weights and validation."""

from collections.abc import Iterator, Sequence
from typing import Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.bad_records import LeftOut
from gluon_asymmnet.data.sources import Contents
from gluon_asymmnet.distributed.workers import ALONE, Workers
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.train.ema import METRIC_PREFIX, make_average
from gluon_asymmnet.train.optimizers import make_optimizer
from gluon_asymmnet.train.schedules import make_schedule


class Task:
    """A network with its data and its update, for ``loop.run``.

    A subclass reads its data, calls ``_build``, and defines ``card``, ``skipped``, ``_input`` and
    ``_validation`` and the methods that are empty here.

    Args:
        config: settings of the run, a ``LoopConfig``.
        devices: MXNet contexts to train on.
        workers: the processes that train together.

    Attributes:
        metric: name of the training metric in the log: accuracy, RMSE or SmoothL1.
        images_per_step: images of one update, of all workers.
        steps_per_epoch: updates of one epoch.
        first_step: updates that were done before this run, by the weights it starts from.
        schedule: learning rate as a function of the update, counted from 1.
        ema: moving average of the weights, or None.
        data: the contents of the training set and of the validation set, by these names.
        start_line: what the weights of ``--finetune`` gave, for the log, or "".
        callbacks: functions that take the row of each epoch, see ``session.run``.
        left_out: number of damaged images that the last validation left out, over all workers.
    """

    metric: str
    data: dict[str, Contents]
    left_out = 0
    callbacks: Sequence = ()
    start_line = ""

    def __init__(self, config, devices, workers: Workers = ALONE):
        self.config, self.devices, self.workers = config, devices, workers

    def _build(
        self, *, images_per_step: int, steps_per_epoch: int, first_epoch: int, peak_lr: float,
        multi_precision: bool = False,
    ) -> None:  # fmt: skip
        """Make the schedule, the network, its trainer, its average and its evaluation copy."""
        config = self.config
        self.images_per_step, self.steps_per_epoch = images_per_step, steps_per_epoch
        self.first_step = first_epoch * steps_per_epoch
        self.schedule = make_schedule(config, steps_per_epoch, peak_lr)
        mx.random.seed(config.seed)
        self.net = self._make_net()
        if config.no_wd:
            for param in self.net.collect_params(".*beta|.*gamma|.*bias").values():
                param.wd_mult = 0.0
        self.trainer = mx.gluon.Trainer(
            self.net.collect_params(),
            make_optimizer(config, learning_rate=self.schedule(1), multi_precision=multi_precision),
            update_on_kvstore=False,
        )
        self.ema = make_average(self.net, config)
        self._eval_net = self._make_eval_net()
        self._eval_net.initialize(ctx=self.devices[0])

    def _make_net(self):
        """Return the network to train, initialised."""
        raise NotImplementedError

    def _make_eval_net(self):
        """Return a second network of the same architecture, for validation."""
        raise NotImplementedError

    @property
    def data_line(self) -> str:
        """One line about the data: numbers, and what is missing, ignored or empty."""
        return "data: " + " | ".join(found.line(name) for name, found in self.data.items())

    @property
    def fingerprints(self) -> dict[str, dict]:
        """The identity of each data set, as JSON values."""
        return {name: found.fingerprint for name, found in self.data.items()}

    def describe(self) -> str:
        """Return the first line of the log."""
        raise NotImplementedError

    def batches(self, epoch: int, first_step: int) -> Iterator:
        """Yield the batches of an epoch from a step of it on."""
        return self._input.epoch(epoch, first_step)

    def step(self, batch, epoch: int, rng: np.random.Generator):
        """Do one update.

        Returns: a (2,) array, asynchronous: sums of the loss and of the metric over this worker's
            images.
        """
        raise NotImplementedError

    def validate(self, epoch: int) -> Optional[dict[str, float]]:
        """Return the metrics on the validation set, or None without a validation set.

        The first metric, top-1 or mAP, selects the best weights.  The metrics of the average have
        the prefix ``ema_``; the first of them selects the best average.

        The weights are copied to a second network: at inference oneDNN changes the layout of the
        weights in the background, and further training of them would not repeat bit for bit.
        """
        if self._validation is None:
            return None
        params = self.net._collect_params_with_prefix()
        self._set_eval_weights({n: param.data(self.devices[0]) for n, param in params.items()})
        step = (epoch + 1) * self.steps_per_epoch
        metrics = self._evaluate(epoch, LeftOut(self.skipped, step))
        if self.ema:
            self._set_eval_weights(self.ema.arrays)
            average = self._evaluate(None, LeftOut(self.skipped, step))
            metrics.update({METRIC_PREFIX + name: value for name, value in average.items()})
        return metrics

    def _set_eval_weights(self, weights: dict) -> None:
        for name, param in self._eval_net._collect_params_with_prefix().items():
            param.set_data(weights[name])

    def _evaluate(self, epoch: Optional[int], left_out: LeftOut) -> dict[str, float]:
        """Return the metrics of the evaluation network, and set the attribute ``left_out``.

        Args:
            epoch: None for the average.
            left_out: takes the images that cannot be used.
        """
        raise NotImplementedError


def training_devices(gpus: Sequence[int]) -> list:
    """Return the contexts of the GPUs with these numbers, or that of the CPU without numbers.

    Raises: InputError for a GPU that this machine or this build of MXNet does not have.
    """
    available = mx.context.num_gpus()
    if gpus and max(gpus) >= available:
        built = "CUDA" in [f.name for f in mx.runtime.feature_list() if f.enabled]
        reason = f"this machine has {available}" if built else "this MXNet is built without CUDA"
        raise InputError(f"GPU {max(gpus)} is not available: {reason}; use --num-gpus {available}")
    return [mx.gpu(number) for number in gpus] or [mx.cpu()]
