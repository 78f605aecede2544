"""The mathematics of compress/decomposition.py against sums written out and slow loops."""

import tracemalloc

import numpy as np
import pytest

from gluon_asymmnet.compress import decomposition as d
from gluon_asymmnet.compress.moments import MomentSums, Window, sample_patches
from gluon_asymmnet.errors import InputError
from tests.floats import assert_close

C, N, K = 6, 14, 3

# Everything is computed in double precision; solving for the factors magnifies rounding errors.
DOUBLE = {"terms": 1000, "precision": "float64", "condition": 1000}


def layer(seed=0, c=C, n=N, samples=600, relu=True):
    """A kernel, a bias, and patches whose channels correlate, with the responses to them."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(n, c, K, K)), rng.normal(size=n)
    images = np.einsum("ab,sbhw->sahw", rng.normal(size=(c, c)), rng.normal(size=(60, c, 8, 8)))
    images = np.maximum(images, 0) if relu else images
    window = Window((K, K), (1, 1), (1, 1))
    patches = sample_patches(images, window, samples // 60, rng)
    return weight, bias, patches, patches @ weight.reshape(n, -1).T + bias


def moments_of(patches, responses):
    sums = MomentSums(patches.shape[1], responses.shape[1])
    for first in range(0, len(patches), 37):
        sums.add(patches[first : first + 37], responses[first : first + 37])
    return sums.moments()


METHODS = {
    "weight": lambda w, b, m, r: d.weight_svd(w, b, r),
    "data": lambda w, b, m, r: d.data_svd(w, m, r),
    "sequential": lambda w, b, m, r: d.sequential(w, m, r),
    "sweeps": lambda w, b, m, r: d.sequential(w, m, r, sweeps=2),
    "joint": lambda w, b, m, r: d.sequential(w, m, r, joint=True),
}


def error_of(factors, patches, responses):
    """The relative error of the responses, by hand."""
    given = patches @ factors.kernel.reshape(len(factors.bias), -1).T + factors.bias
    return np.linalg.norm(given - responses) / np.linalg.norm(responses - responses.mean(axis=0))


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "a channel without data"])
@pytest.mark.parametrize("method", METHODS)
def test_full_rank_is_the_convolution(method, dead):
    weight, bias, patches, _ = layer()
    if dead:
        patches[:, 9:18] = 0
    responses = patches @ weight.reshape(N, -1).T + bias
    factors = METHODS[method](weight, bias, moments_of(patches, responses), 9)
    assert_close(factors.kernel, weight, **DOUBLE)
    assert_close(factors.bias, bias, **DOUBLE)


def test_full_rank_is_the_number_of_kernels_where_these_are_fewer():
    weight, bias, patches, responses = layer(n=4)
    assert d.largest_multiplier(weight.shape) == 4
    for method in METHODS.values():
        factors = method(weight, bias, moments_of(patches, responses), 4)
        assert_close(factors.kernel, weight, **DOUBLE)


def test_two_layers_compute_what_their_kernel_says():
    """Depthwise and pointwise by loops: filter c * m + j belongs to channel c."""
    weight, _, patches, responses = layer()
    factors = d.sequential(weight, moments_of(patches, responses), 2)
    assert factors.spatial.shape == (2 * C, 1, K, K) and factors.pointwise.shape == (N, 2 * C)
    x = patches[0].reshape(C, K, K)
    middle = [np.sum(factors.spatial[f, 0] * x[f // 2]) for f in range(2 * C)]
    expected = factors.pointwise @ middle
    assert_close(np.tensordot(factors.kernel, x, axes=3), expected, **DOUBLE)
    narrow = d.channel(weight, moments_of(patches, responses), 5)
    assert narrow.spatial.shape == (5, C, K, K)
    middle = [np.sum(narrow.spatial[f] * x) for f in range(5)]
    assert_close(np.tensordot(narrow.kernel, x, axes=3), narrow.pointwise @ middle, **DOUBLE)


@pytest.mark.parametrize("m", [1, 3, 8])
def test_error_of_weight_svd_is_the_rest_of_the_singular_values(m):
    weight, bias, *_ = layer()
    squared = np.sum((d.weight_svd(weight, bias, m).kernel - weight) ** 2)
    s = np.linalg.svd(weight.reshape(N, C, 9).transpose(1, 0, 2), compute_uv=False)
    assert squared == pytest.approx(np.sum(s[:, m:] ** 2))


@pytest.mark.parametrize("m", [1, 4])
def test_error_of_data_svd_is_that_of_each_channels_responses(m):
    weight, _, patches, responses = layer()
    kernel = d.data_svd(weight, moments_of(patches, responses), m).kernel
    for i in range(C):
        x = patches[:, 9 * i : 9 * i + 9]
        x = x - x.mean(axis=0)
        whole, kept = (x @ k[:, i].reshape(N, 9).T for k in (weight, kernel))
        s = np.linalg.svd(whole, compute_uv=False)
        assert np.sum((whole - kept) ** 2) == pytest.approx(np.sum(s[m:] ** 2), rel=1e-4)


def test_sequential_by_samples():
    """The text-book form, which carries the residual of every sample."""
    weight, _, patches, responses = layer()
    centred = patches - patches.mean(axis=0)
    residual, kernel = np.zeros((len(patches), N)), []
    for i in range(C):
        x = centred[:, 9 * i : 9 * i + 9]
        target = x @ weight[:, i].reshape(N, 9).T + residual
        best = np.linalg.pinv(x) @ target
        v = np.linalg.svd(x @ best, full_matrices=False)[2][:2].T
        residual = target - x @ best @ v @ v.T
        kernel.append((best @ v @ v.T).T)
    factors = d.sequential(weight, moments_of(patches, responses), 2)
    # apart by the ridge, which the samples' pseudoinverse has not
    assert_close(factors.kernel.reshape(N, C, 9), np.stack(kernel, 1), condition=100)
    assert error_of(factors, patches, responses) == pytest.approx(
        np.linalg.norm(residual) / np.linalg.norm(responses - responses.mean(axis=0)), rel=1e-5
    )


@pytest.mark.parametrize("method", ["data", "sequential", "sweeps", "joint"])
def test_relative_error_is_that_of_the_samples(method):
    weight, bias, patches, responses = layer()
    moments = moments_of(patches, responses)
    factors = METHODS[method](weight, bias, moments, 2)
    expected = error_of(factors, patches, responses)
    assert d.relative_error(factors, moments) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_more_is_never_worse(seed):
    """In the multiplier, in sweeps, by the joint step.  (Not of ``data_svd``: a sum of optima.)"""
    weight, bias, patches, responses = layer(seed)
    other = layer(seed + 50)
    asymmetric = moments_of(patches + 0.3 * other[2], responses)
    for moments in (moments_of(patches, responses), asymmetric):
        for m in (1, 2, 5):
            errors = [
                d.relative_error(d.sequential(weight, moments, m, sweeps=s), moments)
                for s in range(4)
            ]
            assert all(b <= a * (1 + 1e-9) for a, b in zip(errors, errors[1:]))
            joint = d.sequential(weight, moments, m, sweeps=3, joint=True)
            assert d.relative_error(joint, moments) <= errors[-1] * (1 + 1e-9)
        ranks = [d.relative_error(d.channel(weight, moments, r), moments) for r in range(1, N + 1)]
        assert all(b <= a * (1 + 1e-9) for a, b in zip(ranks, ranks[1:]))
    moments = moments_of(patches, responses)
    for method in ("weight", "sequential", "sweeps"):
        errors = [d.relative_error(METHODS[method](weight, bias, moments, m), moments)
                  for m in range(1, 10)]  # fmt: skip
        assert all(b <= a + 1e-6 for a, b in zip(errors, errors[1:])), method


def test_the_multi_layer_form_undoes_what_earlier_layers_did():
    """Patches that are a linear map of the true ones can be made up for."""
    weight, bias, patches, responses = layer(relu=False)
    bent = patches * np.repeat(np.linspace(0.5, 2, C), 9)
    factors = d.sequential(weight, moments_of(bent, responses), 9, sweeps=30)
    plain = d.sequential(weight, moments_of(bent, bent @ weight.reshape(N, -1).T + bias), 9)
    assert error_of(factors, bent, responses) < 0.05 < 0.3 < error_of(plain, bent, responses)


def test_channel_keeps_principal_components():
    weight, _, patches, responses = layer()
    centred = responses - responses.mean(axis=0)
    s = np.linalg.svd(centred, compute_uv=False)
    factors = d.channel(weight, moments_of(patches, responses), 4)
    given = error_of(factors, patches, responses)
    assert given == pytest.approx(np.sqrt(np.sum(s[4:] ** 2) / np.sum(s**2)), rel=1e-4)
    whole = d.channel(weight, moments_of(patches, responses), N)
    assert_close(whole.kernel, weight, **DOUBLE)


def test_channel_through_a_relu():
    """Exact at full rank, under any normalisation; at less it beats the linear form there."""
    weight, bias, patches, responses = layer()
    rng = np.random.default_rng(1)
    scale, shift = rng.uniform(-2, 2, N), rng.normal(size=N)

    def rectified(responses):
        return np.maximum(responses * scale + shift, 0)

    whole = d.channel_relu(weight, bias, responses, responses, N, scale=scale, shift=shift)
    assert_close(whole.kernel, weight, **DOUBLE)
    assert_close(whole.bias, bias, **DOUBLE)
    linear = d.channel(weight, moments_of(patches, responses), 4)
    relu = d.channel_relu(weight, bias, responses, responses, 4, scale=scale, shift=shift)
    errors = [
        np.linalg.norm(
            rectified(patches @ f.kernel.reshape(N, -1).T + f.bias) - rectified(responses)
        )
        for f in (relu, linear)
    ]
    assert errors[0] < errors[1]


def test_equal_cost_by_hand():
    """c = n = 24, k = 3: 24 * 9 + 24 * 24 = 792 against d * (216 + 24)."""
    assert d.equal_cost_rank((24, 24, 3, 3), 1) == 3
    assert d.equal_cost_rank((24, 24, 3, 3), 2) == 7  # 6.6
    assert d.equal_cost_rank((24, 24, 3, 3), 9) == 24  # 29.7 would cost more than the whole layer
    assert d.equal_cost_rank((2, 1, 3, 3), 1) == 1


@pytest.mark.parametrize("m", [0, 10, -1])
def test_multipliers_out_of_range(m):
    weight, bias, patches, responses = layer()
    for method in METHODS.values():
        with pytest.raises(InputError, match=rf"from 1 to 9 for 14 kernels of 3 x 3, got {m}"):
            method(weight, bias, moments_of(patches, responses), m)


@pytest.mark.parametrize("rank", [0, 15])
def test_ranks_out_of_range(rank):
    weight, bias, patches, responses = layer()
    with pytest.raises(InputError, match=f"rank must be a whole number from 1 to 14, got {rank}"):
        d.channel(weight, moments_of(patches, responses), rank)
    with pytest.raises(InputError, match=f"from 1 to 14, got {rank}"):
        d.channel_relu(weight, bias, responses, responses, rank)


def test_no_samples():
    with pytest.raises(InputError, match=r"no samples: .* at least one image"):
        MomentSums(9, 4).moments()


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 1, 1), (1, 2, 2)])
def test_patches_are_what_the_convolution_sees(stride, padding, dilation):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 2, 7, 9))
    window = Window((3, 3), (stride,) * 2, (padding,) * 2, (dilation,) * 2)
    found = sample_patches(images, window, 40, np.random.default_rng(1))
    padded = np.pad(images, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    height, width = window.output_size(7, 9)
    every = [
        {
            padded[i, :, y * stride :: dilation, x * stride :: dilation][:, :3, :3].tobytes()
            for y in range(height)
            for x in range(width)
        }
        for i in range(3)
    ]
    reached = [{patch.tobytes() for patch in found[40 * i : 40 * i + 40]} for i in range(3)]
    assert all(some <= all_ and len(some) > 10 for some, all_ in zip(reached, every))


def test_memory_does_not_grow_with_the_data():
    def peak(batches):
        tracemalloc.start()
        sums, rng = MomentSums(360, 20), np.random.default_rng(0)
        for _ in range(batches):
            x = sample_patches(np.ones((4, 40, 6, 6)), Window((3, 3)), 8, rng)
            sums.add(x, x[:, :20])
        sums.moments()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak(100) < 1.1 * peak(5)
    needed = MomentSums.bytes_needed(360, 20)
    assert 0.9 * needed < peak(5) < 1.3 * needed
