"""The comparison of floats must accept another order of adding and refuse wrong results."""

import ast

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.floats import NET, assert_close, bound, difference

TERMS = 1000


@pytest.fixture
def factors():
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in ((20, TERMS), (TERMS, 30))]


@pytest.fixture
def product(factors):
    a, b = (f.astype(np.float64) for f in factors)
    return a @ b


def in_order(a, b, dtype, order):
    """Multiply matrices and add one term after the other in the given order and precision."""
    total = np.zeros((a.shape[0], b.shape[1]), dtype)
    for i in order:
        total = (total + np.outer(a[:, i], b[i]).astype(dtype)).astype(dtype)
    return total


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_any_order_of_adding_is_close(factors, product, precision, seed):
    order = np.random.default_rng(seed).permutation(TERMS)
    found = in_order(*factors, precision, order)
    assert_close(found, product, terms=TERMS, precision=precision)
    with pytest.raises(AssertionError, match=r"differ by .*, above 0 \(0 terms in float32\)"):
        assert_close(found, product, terms=0)


def test_terms_that_cancel_are_close():
    """An element that is nearly 0 among larger ones fails element by element, and only there."""
    expected, found = np.array([1e-6, 1.0, -2.0]), np.array([1.1e-6, 1.0, -2.0])
    assert_close(found, expected)
    with pytest.raises(AssertionError):
        assert_close(found, expected, axes=())


def wrong_sign(x):
    x[3, 4] = -x[3, 4]


def shifted(x):
    x[:] = np.roll(x, 1, axis=1)


def two_exchanged(x):
    x[2, [5, 6]] = x[2, [6, 5]]


def scaled(x):
    x *= 1.001


def scaled_in_one_row(x):
    x[np.abs(x).max(axis=1).argmax()] *= 0.999


def one_nan(x):
    x[0, 0] = np.nan


def one_infinite(x):
    x[0, 0] = np.inf


@pytest.mark.parametrize("terms", [1, TERMS, NET])
@pytest.mark.parametrize(
    "damage",
    [wrong_sign, shifted, two_exchanged, scaled, scaled_in_one_row, one_nan, one_infinite],
)
def test_wrong_results_are_not_close(product, damage, terms):
    found = product.copy()
    assert_close(found, product, terms=terms)
    damage(found)
    with pytest.raises(AssertionError):
        assert_close(found, product, terms=terms)


def test_along_axes_each_slice_has_its_own_scale():
    expected = np.array([[1.0, 2.0], [1e-4, 2e-4]])
    found = expected * [[1], [1.001]]
    assert_close(found, expected)  # 2e-7 beside 2
    with pytest.raises(AssertionError):
        assert_close(found, expected, axes=1)
    assert difference(found, expected, axes=1) == pytest.approx(0.001)


def test_a_given_scale_stands_for_sums_that_cancel():
    assert_close([1e-6], [0.0], scale=3)
    with pytest.raises(AssertionError):
        assert_close([1e-6], [0.0])
    with pytest.raises(AssertionError):
        assert_close([3e-6], [0.0], scale=3)


def test_shapes_and_places_of_nan_must_agree():
    assert_close([1.0, np.nan, -np.inf], [1.0, np.nan, -np.inf])
    for expected in ([1.0], [[1.0, 2.0]], [np.nan, 2.0], [1.0, np.inf]):
        with pytest.raises(AssertionError):
            assert_close([1.0, 2.0], expected)
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)))


def test_the_bound_follows_from_precision_and_terms():
    assert bound() == 4 * 2**-23
    assert bound(100) == 10 * bound()
    assert bound(4, "float16") == 8 * 2**-10
    assert bound(condition=7) == 7 * bound()
    assert bound(NET) < 5e-5


def test_no_test_has_a_tolerance_of_its_own():
    """NumPy's comparisons, whose tolerances know nothing of the sums, are not used."""
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in (
                "assert_allclose", "allclose", "isclose", "assert_almost_equal",
            ):  # fmt: skip
                found.append(f"{path.name}:{node.lineno}")
    assert not found
