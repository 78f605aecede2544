"""An exponential moving average of a network's weights."""

from typing import Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.weights.params_file import read_params

METRIC_PREFIX = "ema_"  # of the average's metrics


def decay_of(update: int, decay: float, power: float) -> float:
    """Return the decay of an update, counted from 1: ``min(decay, 1 - update ** -power)``.

    The first decay is 0, so that the average starts from the weights after the first update, not
    from random ones.  With power 3/4 the decay reaches 0.999 after 10,000 updates and 0.9999 after
    215,443.

    Args:
        power: of the warm-up; 0: none.

    Source: ``ModelEmaV3.get_decay`` of timm 1.0, with its ``warmup_gamma`` 1.
    """
    if update <= 1:
        return 0.0
    return min(decay, 1 - update**-power) if power else decay


class AveragedWeights:
    """The average of every array of a network, in single precision on its first device.

    Running means and variances of batch normalisation are averaged, too, as timm and torchvision
    do: those of the network belong to other weights.

    Args:
        net: initialised; updates read it.
        decay, power: as ``decay_of`` takes them.

    Attributes:
        best, best_epoch: first metric and epoch of the average's best validation.
    """

    def __init__(self, net, decay: float, power: float):
        self._params = net._collect_params_with_prefix()
        self._decay, self._power = decay, power
        self.arrays = {name: self._value(name).copy() for name in self._params}
        self.best: Optional[float] = None
        self.best_epoch: Optional[int] = None

    def _value(self, name: str):
        """Return an array as it is after the last update; asynchronous.

        In MXNet 1.9.1 the backward pass of batch normalisation writes the running statistics
        without the engine's knowledge, so that a reader gets old or new ones.  The same operator
        computes gamma's gradient: an operation that reads the updated gamma runs after it.
        """
        value = self._single(name)
        layer, _, kind = name.rpartition(".")
        if kind in ("running_mean", "running_var"):
            gamma = self._single(f"{layer}.gamma")
            value = value + (gamma - gamma)
        return value

    def _single(self, name: str):
        param = self._params[name]
        return param.data(param.list_ctx()[0]).astype("float32", copy=False)

    def update(self, update: int) -> None:
        """Add the weights after an update, counted from 1, to the average.  Asynchronous.

        The average moves by a share of its distance, ``a += (1 - d) * (w - a)``: ``d * a`` rounds
        ``d`` itself, and for 0.9999 that alone would change the average by 0.03 %.
        """
        share = 1 - decay_of(update, self._decay, self._power)
        for name, average in self.arrays.items():
            average += share * (self._value(name) - average)

    def update_best(self, validation: dict[str, float], epoch: int) -> bool:
        """Compare a validation with the best one; return whether it is the new best."""
        score = next((v for name, v in validation.items() if name.startswith(METRIC_PREFIX)), None)
        if score is None or (self.best is not None and score <= self.best):
            return False
        self.best, self.best_epoch = score, epoch
        return True

    @property
    def state(self) -> dict:
        """The values besides the arrays that ``load`` restores, for JSON."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def as_numpy(self) -> dict:
        """Return the arrays under their structural names, as NumPy arrays."""
        return {name: array.asnumpy() for name, array in self.arrays.items()}

    def load(self, path, state: dict) -> None:
        """Restore the arrays of a file of ``as_numpy``, and ``state``.

        Raises: FormatError if the file is damaged or holds another network.
        """
        found = read_params(path)
        for name, array in self.arrays.items():
            if name not in found or found[name].shape != array.shape:
                raise FormatError(f"{path}: lacks the average of {name}, {array.shape}")
        for name, array in self.arrays.items():
            array[:] = mx.nd.array(found[name], dtype="float32")
        self.best, self.best_epoch = state["best"], state["best_epoch"]


def make_average(net, config) -> Optional[AveragedWeights]:
    """Return the average that ``config`` requests, or None."""
    return AveragedWeights(net, config.ema, config.ema_power) if config.ema else None
