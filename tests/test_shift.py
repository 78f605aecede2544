"""Channel shift, address shift and shortcut shift against NumPy's view of a sample's memory."""

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.nn.shift import AddressShift, ChannelShift, ShortcutShift
from tests.floats import assert_close

nd = mx.nd
SHAPES = [(2, 8, 3, 4), (1, 4, 5, 5), (1, 12, 1, 3), (2, 4, 2, 1), (1, 8, 1, 1)]


def distinct(shape):
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


def flat_shift(sample):
    """Read the quarters of a sample's memory at addresses displaced by +1, +W, -1, -W."""
    memory, quarter = sample.ravel(), sample.size // 4
    width = sample.shape[-1]
    windows = [
        memory[k * quarter + d : (k + 1) * quarter + d]
        for k, d in enumerate((1, width, -1, -width))
    ]
    return np.concatenate(windows).reshape(sample.shape)


def zero_shift(sample):
    left, up, right, down = np.split(np.pad(sample, ((0, 0), (1, 1), (1, 1))), 4)
    return np.concatenate(
        [left[:, 1:-1, 2:], up[:, 2:, 1:-1], right[:, 1:-1, :-2], down[:, :-2, 1:-1]]
    )


ORACLES = {"flat": flat_shift, "zero": zero_shift}


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("mode", ORACLES)
@pytest.mark.parametrize("shape", SHAPES)
def test_address_shift_against_memory(shape, mode, hybrid):
    block = AddressShift(shape[1], mode)
    if hybrid:
        block.hybridize()
    x = distinct(shape)
    expected = np.stack([ORACLES[mode](sample) for sample in x])
    np.testing.assert_array_equal(block(nd.array(x)).asnumpy(), expected)


@pytest.mark.parametrize("mode", ORACLES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_of_address_shift_goes_where_the_data_came_from(shape, mode):
    x, weights = nd.array(distinct(shape)), nd.array(distinct(shape) ** 2)
    x.attach_grad()
    with mx.autograd.record():
        loss = (AddressShift(shape[1], mode)(x) * weights).sum()
    loss.backward()
    expected = np.zeros((shape[0], np.prod(shape[1:]) + 1))  # address 0: what came from nowhere
    origin = distinct(shape[1:])
    for grad, weight in zip(expected, weights.asnumpy()):
        np.add.at(grad, ORACLES[mode](origin).astype(int).ravel(), weight.ravel())
    assert_close(x.grad.asnumpy().reshape(shape[0], -1), expected[:, 1:], terms=50)


def test_rows_wrap_as_on_the_poster():
    """A shift to the right of a 3 x 3 channel; A is the element before it in memory."""
    a = 9.9
    x = np.zeros((1, 4, 3, 3), np.float32)
    x[0, 2] = [[0.3, 0.4, 0.8], [0.1, 0.6, 0.5], [0.7, 0.2, 0.9]]
    x[0, 1, 2, 2] = a
    expected = [[a, 0.3, 0.4], [0.8, 0.1, 0.6], [0.5, 0.7, 0.2]]
    assert_close(AddressShift(4)(nd.array(x)).asnumpy()[0, 2], expected, axes=())


def test_modes_agree_inside_the_border():
    """Of the 96 cells of an 8 x 3 x 4 sample 28 differ, all on the border."""
    x = nd.array(distinct((1, 8, 3, 4)))
    flat, zero = (AddressShift(8, mode)(x).asnumpy() for mode in ("flat", "zero"))
    assert (flat != zero).sum() == 28
    np.testing.assert_array_equal(flat[:, :, 1:-1, 1:-1], zero[:, :, 1:-1, 1:-1])


def test_channel_shift_by_hand():
    """The poster's A1 A2|B1 B2|C1 C2|D1 D2 -> A2 B1|B2 C1|C2 D1|D2 A1."""
    x = nd.arange(8).reshape((1, 8, 1, 1))
    shifted = ChannelShift(8)(x)
    assert shifted.asnumpy().ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    assert ChannelShift(8, 2)(x).asnumpy().ravel().tolist() == [2, 3, 4, 5, 6, 7, 0, 1]
    assert (ChannelShift(8, inverse=True)(shifted) == x).asnumpy().all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_channel_shift_is_a_roll_and_has_its_inverse(groups):
    x = distinct((2, 24, 2, 3))
    shifted = ChannelShift(24, groups)(nd.array(x))
    np.testing.assert_array_equal(shifted.asnumpy(), np.roll(x, -24 // (2 * groups), axis=1))
    np.testing.assert_array_equal(ChannelShift(24, groups, inverse=True)(shifted).asnumpy(), x)


def test_shortcut_shift_by_hand():
    x, y = nd.array([1, -2]).reshape((1, 2, 1, 1)), nd.array([-3, 4, 5]).reshape((1, 3, 1, 1))
    assert ShortcutShift()(x, y).asnumpy().ravel().tolist() == [1, 0, 0, 4, 5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ChannelShift(20), "4 groups need a multiple of 8 channels, got 20"),
        (lambda: AddressShift(10), "needs a multiple of 4 channels, got 10"),
        (lambda: AddressShift(8, "wrap"), "is flat or zero, got 'wrap'"),
    ],
)
def test_what_cannot_shift_says_why(call, message):
    with pytest.raises(InputError, match=message):
        call()
