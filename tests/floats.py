"""The comparison of floating-point results that every test uses.

Two correct computations of one sum differ: each kernel adds in its own order, fused or not.  The
difference grows with the number of terms and with the size of what is added, not with the size of
one result, which may be near 0 where terms cancel.  So the largest difference is measured against
the largest expected magnitude, and its bound follows from precision and number of terms.
"""

import numpy as np

# The distance from 1 to the next number.
STEP = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}

MARGIN = 4  # the bound for a single term, in steps

# Terms on the longest way through a small net from the input to its output, in all its layers.
NET = 10_000


def as_array(value) -> np.ndarray:
    """Return a number, list, NDArray or tensor as float64."""
    if hasattr(value, "asnumpy"):
        value = value.asnumpy()
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    return np.asarray(value, np.float64)


def difference(actual, expected, *, axes=None, scale=None) -> float:
    """Return the largest difference over the largest expected magnitude along ``axes``.

    ``axes`` is None for all and ``()`` for none, that is, element by element.  ``scale`` replaces
    the expected magnitude where the terms are much larger than the expected sums.
    NaN and infinity have to stand in the same places.
    """
    actual, expected = as_array(actual), as_array(expected)
    assert actual.shape == expected.shape, f"{actual.shape} in place of {expected.shape}"
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    actual, expected = np.where(finite, actual, 0), np.where(finite, expected, 0)
    if not expected.size:
        return 0.0
    apart = np.abs(actual - expected)
    if scale is None:
        scale = np.abs(expected).max(axis=axes, keepdims=True)
    # equal is equal, whatever the scale; 0 in place of another number is not
    relative = np.divide(apart, scale, out=np.full(apart.shape, np.inf), where=scale != 0)
    return float(np.where(apart == 0, 0, relative).max())


def bound(terms: float = 1, precision: str = "float32", condition: float = 1) -> float:
    """Return the largest accepted difference of sums of ``terms`` terms.

    Rounding errors have either sign, so they grow with the root of their number.
    """
    return MARGIN * STEP[precision] * terms**0.5 * condition


def assert_close(
    actual, expected, *, terms: float = 1, precision: str = "float32", condition: float = 1,
    axes=None, scale=None, name: str = "",
) -> None:  # fmt: skip
    """Fail unless ``actual`` differs from ``expected`` by rounding errors only.

    ``terms`` counts what is added for one element, over all steps of the computation;
    ``precision`` is the lowest in which either side computes.  ``condition`` is how many times the
    computation magnifies an error in its input, as solving an equation does, or normalising a batch
    with few pictures.
    With ``terms=1`` nothing is summed, and ``axes=()`` compares element by element.
    """
    found = difference(actual, expected, axes=axes, scale=scale)
    allowed = bound(terms, precision, condition)
    assert found <= allowed, (
        f"{name or 'arrays'} differ by {found:.3g} of the largest magnitude, "
        f"above {allowed:.3g} ({terms:g} terms in {precision})"
    )
