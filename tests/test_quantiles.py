"""Quantiles by histogram: within half a step of sorting everything, and the same in any grouping."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from align.transforms.write.quantiles import QUANTILES, Histograms, quantiles

STEPS = st.sampled_from([1, 2, 32, 1024])


def counted(values, step):
    histograms = Histograms()
    histograms.add("x", np.array(values, np.int64), step)
    return histograms.sums()


@given(st.lists(st.integers(-50_000, 50_000), min_size=1, max_size=60), STEPS)
def test_a_quantile_is_the_least_value_with_that_share_at_or_below_it(values, step):
    values = [v % (step * 8000) for v in values]
    rounded = sorted((v + step // 2) // step * step for v in values)
    found = quantiles(counted(values, step), "x", step)
    assert list(found) == list(QUANTILES)
    for share, value in found.items():
        hundredths = round(float(share) * 100)
        expected = next(v for i, v in enumerate(rounded, 1) if i * 100 >= hundredths * len(rounded))
        assert value == expected
        exact = sorted(values)[-(-hundredths * len(values) // 100) - 1]
        assert abs(value - exact) <= step / 2


@given(st.lists(st.integers(-(2**15), 2**15 - 1), max_size=40), STEPS)
def test_counts_of_values_give_the_same_as_the_values(values, step):
    histograms = Histograms()
    counts = np.bincount(np.array(values, np.int64) + 2**15, minlength=2**16)
    histograms.add_counts("x", -(2**15), counts, max(step, 32))
    assert histograms.sums() == counted(values, max(step, 32))


@given(st.lists(st.integers(-(2**31), 2**31), max_size=30), st.integers(0, 30))
def test_parts_add_up_to_the_whole(values, cut):
    parts = Counter(counted(values[:cut], 32))
    parts.update(counted(values[cut:], 32))
    assert parts == counted(values, 32)


def test_what_is_far_out_is_counted_with_the_outermost():
    assert counted([-(2**40), 2**40, 2**40], 1) == {"x@-16384": 1, "x@16384": 2}


def test_nothing_has_no_quantiles():
    assert quantiles({"xy@3": 1}, "x", 1) == {}
