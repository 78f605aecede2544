"""Frozen stages, layer decay, gradient clipping and accumulation."""

import itertools
from collections.abc import Sequence

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import feature_info
from gluon_asymmnet.errors import InputError

STAGES = 5  # stem and blocks up to stride 2, then 4, 8, 16 and 32


def stages_of(stem, blocks: Sequence, plan) -> list[list]:
    """Return a backbone's blocks by stride: 2 with the stem, 4, 8, 16, 32.

    Args:
        blocks: all of ``plan.blocks``, or the first ones.
    """
    stages: list[list] = [[stem]]
    first = 0
    for info in feature_info(plan)[:-1]:
        if info.stride > 2:
            stages.append([])
        stages[-1] += list(blocks)[first : info.block + 1]
        first = info.block + 1
    return stages


def freeze(stages) -> None:
    """Freeze stages: no updates, and no new statistics.  Call it before their first pass."""
    for block in itertools.chain(*stages):
        block.collect_params().setattr("grad_req", "null")
        freeze_norms(block)


def freeze_norms(net) -> None:
    """Freeze all batch normalisation with its statistics.  Call it before the first pass."""
    net.apply(_fix)


def _fix(block) -> None:
    if isinstance(block, mx.gluon.nn.BatchNorm):
        block._kwargs["use_global_stats"] = True  # Gluon reads it at each call
        block.collect_params().setattr("grad_req", "null")


def freeze_classifier(net, stages: int, *, norms: bool) -> None:
    """Freeze parts of an ``AsymmNet``.

    Args:
        stages: number of first stages to freeze; 6: all but the classifier.
        norms: also freeze all batch normalisation.

    Raises: InputError for some of the stages of another network, which has none.
    """
    features = getattr(net, "features", None)
    if features is None and (stages or norms):
        raise InputError(
            f"{net.prefix.rstrip('_')} has no attribute `features`, which --freeze-stages and "
            f"--freeze-bn freeze"
        )
    if stages:
        freeze([[features]] if stages > STAGES else _stages(net)[:stages])
    if norms:
        freeze_norms(features)


def decay_rates(net, decay: float) -> None:
    """Set the learning rate of each stage of an ``AsymmNet`` to ``decay`` times the next one's.

    The classifier has the full rate, the layers between it and the last stage ``decay`` times it.
    """
    late = [net.features.squeeze, net.features.hidden]
    for depth, blocks in enumerate(reversed([*_stages(net), late]), start=1):
        for block in blocks:
            block.collect_params().setattr("lr_mult", decay**depth)


def _stages(net) -> list[list]:
    if not hasattr(net, "plan"):
        raise InputError(
            f"{net.prefix.rstrip('_')} has no stages for --freeze-stages or --layer-decay; use "
            f"--freeze-stages {STAGES + 1} (all but the classifier) or --freeze-bn"
        )
    return stages_of(net.features.stem, net.features.blocks, net.plan)


def clip_norm(trainer, bound: float) -> None:
    """Scale the gradients down to a norm of at most ``bound``, over all parameters together.

    Call it between ``trainer.allreduce_grads`` and ``trainer.update``.  Values that are
    not finite stay so, and make the next loss not finite, which stops the run.  Asynchronous.

    Args:
        bound: of the gradients as they are, that is multiplied by the divisor of ``update``.

    Source: arXiv:1211.5063, section 3.2, in the form of ``torch.nn.utils.clip_grad_norm_``.
    MXNet's ``clip_global_norm`` squares in the gradients' own precision, which overflows in
    float16.
    """
    trained = [param for param in trainer._params if param.grad_req != "null"]
    for grads in zip(*(param.list_grad() for param in trained)):  # a device's copies
        single = [grad.astype("float32", copy=False) for grad in grads]
        squares = mx.nd.multi_sum_sq(*single, num_arrays=len(single))
        scale = mx.nd.minimum(bound / (mx.nd.sqrt(squares.sum()) + 1e-6), 1)
        for grad in grads:
            grad *= scale.astype(grad.dtype, copy=False)


def set_accumulation(net) -> None:
    """Make backward passes add to the gradients until ``clear`` is called."""
    for param in net.collect_params().values():
        if param.grad_req != "null":
            param.grad_req = "add"


def clear(net) -> None:
    """Set the gradients to zero."""
    for param in net.collect_params().values():
        if param.grad_req != "null":
            param.zero_grad()
