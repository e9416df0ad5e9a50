from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.schemas.time import (
    NS,
    ClockMap,
    ClockPiece,
    TimeSpan,
    count_in,
    round_ties_up,
    seconds_to_ns,
    ticks_to_ns,
)

TEN_HOURS = 36_000 * NS


@pytest.mark.parametrize(
    ("value", "rounded"),
    [("0", 0), ("1/2", 1), ("-1/2", 0), ("3/2", 2), ("-3/2", -1), ("5/3", 2), ("-5/3", -2), ("7", 7)],
)
def test_rounding_goes_to_the_nearest_integer_with_ties_up(value: str, rounded: int) -> None:
    assert round_ties_up(Fraction(value)) == rounded


@given(st.fractions())
def test_rounding_never_moves_more_than_half(value: Fraction) -> None:
    assert -Fraction(1, 2) < round_ties_up(value) - value <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("ticks", "base", "ns"),
    [
        (323, Fraction(1, 15360), 21_028_646),
        (35_999 * 44_100 + 44_099, Fraction(1, 44_100), 35_999_999_977_324),
        (-1024, Fraction(1, 48_000), -21_333_333),
    ],
)
def test_ticks_are_exact_after_ten_hours(ticks: int, base: Fraction, ns: int) -> None:
    assert ticks_to_ns(ticks, base) == ns


def test_a_float_means_the_decimal_it_prints_as() -> None:
    assert seconds_to_ns(0.1) == 100_000_000
    assert seconds_to_ns("9.4") == 9_400_000_000
    assert seconds_to_ns(1800.0210286) == 1_800_021_028_600


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "x"])
def test_what_is_no_number_is_refused(bad: float | str) -> None:
    with pytest.raises(ValueError, match=r"Invalid literal|NaN|nan|infinity|inf"):
        seconds_to_ns(bad)


def test_sample_counts_are_exact() -> None:
    assert count_in(5 * NS, 16_000) == 80_000
    assert count_in(1_001 * NS // 30, 48_000) == 1_601_600


def test_spans_are_half_open() -> None:
    span = TimeSpan(0, 10)
    assert span.holds(0)
    assert not span.holds(10)
    assert not span.touches(TimeSpan(10, 20))
    assert span.cut_to(TimeSpan(5, 20)) == TimeSpan(5, 10)
    assert span.cut_to(TimeSpan(10, 20)) is None


def test_a_span_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="ends before"):
        TimeSpan(1, 0)


@given(
    offset=st.integers(-5 * NS, 5 * NS),
    drift=st.floats(-500, 500),
    time=st.integers(0, TEN_HOURS),
)
def test_a_clock_map_is_exact_to_a_nanosecond_over_ten_hours(offset: int, drift: float, time: int) -> None:
    clock = ClockMap((ClockPiece(0, offset, drift),))
    exact = time + offset + Fraction(drift) / 10**6 * time
    assert abs(clock.at(time) - exact) <= 1


@given(
    offset=st.integers(-5 * NS, 5 * NS),
    drift=st.floats(-500, 500),
    time=st.integers(0, TEN_HOURS),
)
def test_a_clock_map_leads_back(offset: int, drift: float, time: int) -> None:
    clock = ClockMap((ClockPiece(0, offset, drift),))
    assert abs(clock.to_stream(clock.at(time)) - time) <= 2


def test_a_piece_holds_from_its_start_and_the_first_before_it() -> None:
    clock = ClockMap((ClockPiece(100, 1), ClockPiece(200, 50)))
    assert clock.to_recording(np.array([0, 199, 200])).tolist() == [1, 200, 250]


def test_a_clock_map_without_ascending_pieces_is_refused() -> None:
    with pytest.raises(ValueError, match="ascending"):
        ClockMap((ClockPiece(1, 0), ClockPiece(1, 0)))
