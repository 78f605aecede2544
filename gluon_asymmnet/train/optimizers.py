"""Optimizers by name.

All but two are MXNet's own; MXNet 1.9.1 has an operator for AdamW but no optimizer, and no RMSProp
with momentum that is not centred.  ``tests/test_optimizers.py`` compares each with its formula.
"""

from typing import Callable, NamedTuple

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.registry import Registry
from gluon_asymmnet.utils.settings import flag_of

_SETTINGS = ("momentum", "beta1", "beta2", "epsilon", "rho")  # those that not all optimizers take


class Row(NamedTuple):
    """An optimizer of the package."""

    make: Callable  # (mx.optimizer, config, common keyword arguments) -> optimizer
    settings: tuple[str, ...]  # those of ``_SETTINGS`` that it takes
    epsilon: float = 0.0  # where ``--epsilon`` is not given


def _momentum(name: str) -> Callable:
    return lambda module, config, common: getattr(module, name)(momentum=config.momentum, **common)


def _betas(name: str) -> Callable:
    def make(module, config, common):
        kind = _adamw(module) if name == "AdamW" else getattr(module, name)
        return kind(beta1=config.beta1, beta2=config.beta2, **common)

    return make


OPTIMIZERS = Registry("optimizer", {
    "nag": Row(_momentum("NAG"), ("momentum",)),
    "sgd": Row(_momentum("SGD"), ("momentum",)),
    "adam": Row(_betas("Adam"), ("beta1", "beta2", "epsilon"), 1e-8),
    "adamw": Row(_betas("AdamW"), ("beta1", "beta2", "epsilon"), 1e-8),
    "rmsprop": Row(
        lambda module, config, common: _rmsprop(module)(config.rho, config.momentum, **common),
        ("momentum", "rho", "epsilon"), 1e-8,
    ),
    "lamb": Row(_betas("LAMB"), ("beta1", "beta2", "epsilon"), 1e-6),
})  # fmt: skip


def check_optimizer(config) -> None:
    """Raise InputError for an unknown optimizer, or a setting that it does not take."""
    row = OPTIMIZERS.find(config.optimizer)
    if not isinstance(row, Row):
        return  # a user's, which may read any setting
    for name in _SETTINGS:
        value = getattr(config, name)
        if name not in row.settings and value != type(config).__dataclass_fields__[name].default:
            takes = " and ".join(flag_of(config, taken) for taken in row.settings)
            raise InputError(
                f"{flag_of(config, name)} {value} has no effect on --optimizer "
                f"{config.optimizer}, which takes {takes}"
            )


def make_optimizer(config, *, learning_rate: float, multi_precision: bool = False):
    """Return the optimizer of a run; ``config`` is a ``LoopConfig``.

    Raises: InputError if a user's function does not return an optimizer of MXNet.
    """
    from gluon_asymmnet._mxnet import mx

    row = OPTIMIZERS.find(config.optimizer)
    if not isinstance(row, Row):
        optimizer = row(config)
        if not isinstance(optimizer, mx.optimizer.Optimizer):
            raise InputError(
                f"--optimizer {config.optimizer}: its function returned a "
                f"{type(optimizer).__name__}, expected an mx.optimizer.Optimizer"
            )
        optimizer.wd, optimizer.multi_precision = config.wd, multi_precision
        optimizer.set_learning_rate(learning_rate)
        return optimizer
    common = dict(learning_rate=learning_rate, wd=config.wd, multi_precision=multi_precision)
    if "epsilon" in row.settings:
        common["epsilon"] = config.epsilon or row.epsilon
    return row.make(mx.optimizer, config, common)


def _adamw(module):
    """Return the class of AdamW; the class is made here because its base needs MXNet."""
    from gluon_asymmnet._mxnet import mx

    class AdamW(module.Optimizer):
        """Adam with decoupled weight decay: ``w -= lr * (m' / (sqrt(v') + epsilon) + wd * w)``.

        Source: arXiv:1711.05101, algorithm 2, with ``lr`` before the decay, as PyTorch has it.
        """

        def __init__(self, beta1: float, beta2: float, epsilon: float, **common):
            super().__init__(**common)
            self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

        def create_state(self, index, weight):
            """Return the averages of the gradient and of its square."""
            return mx.nd.zeros_like(weight), mx.nd.zeros_like(weight)

        def update(self, index, weight, grad, state):
            """Do one update in place."""
            self._update_count(index)
            step, (mean, square) = self._index_update_count[index], state
            lr, root = self._get_lr(index), (1 - self.beta2**step) ** 0.5
            # m' and v' are m and v over 1 - beta ** step; the operator takes m and v
            mx.nd.contrib.adamw_update(
                weight, grad, mean, square, mx.nd.full(1, self.rescale_grad, ctx=weight.context),
                out=weight, lr=lr * root / (1 - self.beta1**step), eta=1,
                wd=lr * self._get_wd(index), beta1=self.beta1, beta2=self.beta2,
                epsilon=self.epsilon * root,
            )  # fmt: skip

    return AdamW


def _rmsprop(module):
    """Return the class of RMSProp with momentum; see ``_adamw``."""
    from gluon_asymmnet._mxnet import mx

    class RMSProp(module.Optimizer):
        """``n = rho n + (1 - rho) g^2; d = momentum d + lr g / sqrt(n + epsilon); w -= d``.

        As TensorFlow's, with which the MobileNets were trained: epsilon in the root, the rate in
        the momentum, and n starts at 1.  Weight decay is added to g.
        Source: timm's ``RMSpropTF``.
        """

        def __init__(self, rho: float, momentum: float, epsilon: float, **common):
            super().__init__(**common)
            self.rho, self.momentum, self.epsilon = rho, momentum, epsilon

        def create_state(self, index, weight):
            """Return the average of the squared gradient, and the last step."""
            return mx.nd.ones_like(weight), mx.nd.zeros_like(weight)

        def update(self, index, weight, grad, state):
            """Do one update in place."""
            self._update_count(index)
            square, step = state
            grad = grad * self.rescale_grad + self._get_wd(index) * weight
            square[:] = self.rho * square + (1 - self.rho) * grad * grad
            step[:] = self.momentum * step + self._get_lr(index) * grad / mx.nd.sqrt(
                square + self.epsilon
            )
            weight[:] = weight - step

    return RMSProp


def register_optimizer(name: str, function=None) -> Callable:
    """Add an optimizer for ``--optimizer``; also a decorator.

    Args:
        function: called with the run's settings; returns an ``mx.optimizer.Optimizer``.  Learning
            rate and weight decay are set afterwards, from the settings.  Its states must be arrays,
            or nested tuples of them, and all else a function of the number of updates: that is what
            a checkpoint keeps.
    """
    return OPTIMIZERS.register(name, function)
