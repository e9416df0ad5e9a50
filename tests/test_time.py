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


PIECES = st.lists(
    st.tuples(st.integers(1, 20), st.integers(-(10**9), 10**9), st.floats(-500, 500)), min_size=1, max_size=4
)


def clock_of(parts: list[tuple[int, int, float]]) -> ClockMap:
    starts = np.cumsum([length for length, _, _ in parts]) * NS
    return ClockMap(tuple(ClockPiece(int(s), o, d) for s, (_, o, d) in zip(starts, parts, strict=True)))


@given(PIECES, PIECES, st.lists(st.integers(-30 * NS, 90 * NS), max_size=20))
def test_clocks_in_a_row_are_one_clock(one, two, times) -> None:
    first, second = clock_of(one), clock_of(two)
    # A clock that leaps back passes some times twice: one piece cannot say what the second map did to both.
    entries = [first.at(p.start_ns) for p in first.pieces]
    leaps = [first.at(p.start_ns - 1) >= first.at(p.start_ns) for p in first.pieces[1:]]
    if any(leaps) or entries != sorted(entries):
        return
    joined = first.then(second)
    edges = [p.start_ns for p in joined.pieces]
    for time in times:
        if all(abs(time - e) > 2 for e in edges):
            assert abs(joined.at(time) - second.at(first.at(time))) <= 2


@given(
    PIECES, st.integers(-30 * NS, 90 * NS), st.integers(0, 20 * NS), st.lists(st.integers(-30 * NS, 90 * NS))
)
def test_the_span_on_the_stream_misses_no_time_that_leads_into_a_span(parts, start, length, times) -> None:
    clock, span = clock_of(parts), TimeSpan(start, start + length)
    reach = clock.span_on_stream(span)
    assert all(reach.holds(t) for t in times if span.holds(clock.at(t)))


def test_a_span_that_only_a_leap_back_repeats_is_looked_for_on_both_sides() -> None:
    clock = ClockMap((ClockPiece(0, 0), ClockPiece(10 * NS, -NS)))
    reach = clock.span_on_stream(TimeSpan(9_500_000_000, 9_600_000_000))
    assert reach.holds(9_500_000_000)
    assert reach.holds(10_550_000_000)
