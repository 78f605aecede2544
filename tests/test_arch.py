import json
from pathlib import Path

import pytest

from gluon_asymmnet import arch
from gluon_asymmnet.arch import (
    LARGE,
    SMALL,
    BlockSpec,
    plan_block,
    plan_net,
    round_nearest,
    round_up,
    scale_spec,
)
from gluon_asymmnet.errors import InputError

COUNTS = json.loads((Path(__file__).parent / "data/counts.json").read_text())["rows"]


def test_round_up_is_exact():
    assert round_up(200, 2.2) == 440  # in floating point 448
    assert round_up(24, 0.35) == 16  # 8.4; MobileNetV3's own rule would round to 8
    assert round_up(16, 0.5) == 8
    assert round_up(785 // 4) == 200


def test_block_by_hand():
    """E = 64, C = 16, r = 1: 48 computed, 64 + 16 = 80 through the depthwise convolution."""
    plan = plan_block(16, BlockSpec(3, 64, 24, True, "relu", 2), rate=1)
    assert (plan.expand_channels, plan.depthwise_channels, plan.rate) == (48, 80, 1)
    assert plan.se_hidden == 24  # 80 // 4 = 20, up to a multiple of 8
    assert not plan.shortcut


def test_authors_stem_loses_the_first_shortcut():
    for width in (0.35, 0.5):
        assert not plan_net(LARGE, width=width).blocks[0].shortcut
        assert plan_net(LARGE, width=width, stem="scaled").blocks[0].shortcut
    assert plan_net(LARGE).blocks[0].shortcut


def test_authors_stem_expands_needlessly_at_rate_zero():
    assert plan_net(LARGE, width=1.25, rate=0).blocks[0].expand_channels == 24
    assert plan_net(LARGE, width=1.25, rate=0, stem="scaled").blocks[0].expand_channels == 0


@pytest.mark.parametrize("width", [1.25, 1.5])
def test_where_the_released_stem_cannot_be_built_the_scaled_one_is_used(width):
    authors, fixed = (plan_net(LARGE, width=width, stem=stem) for stem in arch.STEMS)
    assert authors == fixed


@pytest.mark.parametrize("spec", [LARGE, SMALL])
def test_nothing_left_to_expand(spec):
    with pytest.raises(InputError, match=r"block 2 at width 0\.35.*rates that fit: 0, 1$"):
        plan_net(spec, width=0.35, rate=2)
    with pytest.raises(InputError, match=r"rates that fit: 0, 1, 2$"):
        plan_net(spec, rate=3)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"width": 0}, "width must be a number above 0 and at most 16, got 0"),
        ({"width": float("nan")}, "width must be .* got nan"),
        ({"width": "wide"}, "width must be .* got 'wide'"),
        ({"rate": -1}, "rate must be a whole number from 0 to 64, got -1"),
        ({"rate": 0.5}, "rate must be a whole number from 0 to 64, got 0.5"),
        ({"shuffle_groups": 3}, "shuffle_groups 3 does not divide the 80 channels"),
        ({"shuffle_groups": -2}, "shuffle_groups must be .* got -2"),
        ({"shuffle_groups": 2, "rate": 0}, "shuffle_groups 2 needs a rate of at least 1"),
        ({"stem": "mine"}, "stem must be one of authors, scaled, got 'mine'"),
    ],
)
def test_settings_that_cannot_be_built(settings, message):
    with pytest.raises(InputError, match=message):
        plan_net(LARGE, **settings)


def test_mobilenetv3_has_rate_zero_only():
    with pytest.raises(InputError, match="its rate is 0, got 2"):
        plan_net(LARGE._replace(asymmetric=False), rate=2)


def test_feature_maps_by_hand():
    """Large: strides 2, 4, 8, 16, 32 end with blocks 0, 2, 5, 11, 14 of the paper's table."""
    found = [tuple(info) for info in arch.feature_info(plan_net(LARGE))]
    assert found == [
        ("c1", 2, 16, 0), ("c2", 4, 24, 2), ("c3", 8, 40, 5), ("c4", 16, 112, 11),
        ("c5", 32, 160, 14), ("squeeze", 32, 960, 15),
    ]  # fmt: skip


def test_hidden_layer_does_not_scale():
    assert scale_spec(SMALL, 0.5).hidden == 1280
    assert scale_spec(SMALL, 0.5).squeeze == 288


@pytest.mark.parametrize(
    ("channels", "width", "divisor", "expected"),
    [(32, 1.4, 8, 48), (16, 1.4, 8, 24), (1280, 1.4, 8, 1792), (24, 0.5, 8, 16), (16, 0.1, 8, 8),
     (40, 1.3, 4, 52), (112, 0.75, 4, 84), (24, 0.75, 4, 20), (12, 0.9, 8, 16), (44, 1, 8, 48)],
)  # fmt: skip
def test_round_nearest_by_hand(channels, width, divisor, expected):
    assert round_nearest(channels, width, divisor) == expected
