import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.schemas.recording import Narration
from align.schemas.time import TimeSpan
from align.transforms.align.text import narrations_in, strip_tags


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("#C C turns right toward the houses", "turns right toward the houses"),
        ("#c c  opens the door", "opens the door"),
        ("# C C opens", "opens"),
        ("#O A person X looks at the mirror", "A person X looks at the mirror"),
        ("#C C picks up #unsure", "picks up"),
        ("#Summary C cooks", "C cooks"),
        ("#C Carries a box", "Carries a box"),
        ("no tag", "no tag"),
        ("#", ""),
    ],
)
def test_tags_go_and_words_stay(raw: str, plain: str) -> None:
    assert strip_tags(raw) == plain


@given(st.text())
def test_no_tag_survives(raw: str) -> None:
    assert "#" not in strip_tags(raw)


@given(st.lists(st.integers(0, 100)), st.integers(0, 100), st.integers(0, 50))
def test_a_window_holds_the_narrations_in_its_half_open_span(
    times: list[int], start: int, length: int
) -> None:
    narrations = sorted(Narration(t, str(i)) for i, t in enumerate(times))
    window = TimeSpan(start, start + length)
    assert narrations_in(narrations, window) == tuple(n for n in narrations if window.holds(n.time_ns))
