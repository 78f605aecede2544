"""Fine-tuning: parts of a network that stay as they are, and early ones that learn slowly."""

import itertools
from collections.abc import Sequence

from gluon_asymmnet._environment import mx
from gluon_asymmnet.arch import feature_info
from gluon_asymmnet.errors import InputError

STAGES = 5  # stem and blocks up to stride 2, then 4, 8, 16 and 32


def stages_of(stem, blocks: Sequence, plan) -> list[list]:
    """Return a backbone's blocks by stride: 2 with the stem, 4, 8, 16, 32.

    Args:
        blocks: all of ``plan.blocks``, or the first so many.
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
    """Leave stages as they are: no updates, and no new statistics.  Before their first pass."""
    for block in itertools.chain(*stages):
        block.collect_params().setattr("grad_req", "null")
        freeze_norms(block)


def freeze_norms(net) -> None:
    """Leave all batch normalisation as it is, its statistics too.  Before its first pass."""
    net.apply(_fix)


def _fix(block) -> None:
    if isinstance(block, mx.gluon.nn.BatchNorm):
        block._kwargs["use_global_stats"] = True  # Gluon reads it at each call
        block.collect_params().setattr("grad_req", "null")


def freeze_classifier(net, stages: int, *, norms: bool) -> None:
    """Leave parts of an ``AsymmNet`` as they are.

    Args:
        stages: how many, from the picture on; 6: all but the classifier.
        norms: all batch normalisation.

    Raises: InputError if some of the stages are meant, and the net is another.
    """
    features = net.features
    if stages:
        freeze([[features]] if stages > STAGES else _stages(net)[:stages])
    if norms:
        freeze_norms(features)


def decay_rates(net, decay: float) -> None:
    """Let each of an ``AsymmNet``'s stages learn at ``decay`` times the rate of the next one.

    The classifier has the full rate, what is between it and the last stage ``decay`` times it.
    """
    late = [net.features.squeeze, net.features.hidden]
    for depth, blocks in enumerate(reversed([*_stages(net), late]), start=1):
        for block in blocks:
            block.collect_params().setattr("lr_mult", decay**depth)


def _stages(net) -> list[list]:
    if not hasattr(net, "plan"):
        raise InputError(
            f"{net.prefix.rstrip('_')} has no stages that --freeze-stages or --layer-decay could "
            f"tell apart; --freeze-stages {STAGES + 1}, all but the classifier, and --freeze-bn do"
        )
    return stages_of(net.features.stem, net.features.blocks, net.plan)
