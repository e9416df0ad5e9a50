from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.schemas.errors import UsageError
from align.transforms.plan.splits import parse_splits, read_assignments, split_of


def test_splits_are_read_exactly():
    assert parse_splits("train=0.9, val=0.1") == (("train", Fraction(9, 10)), ("val", Fraction(1, 10)))
    assert parse_splits("a=1/3,b=1/3,c=1/3")[2] == ("c", Fraction(1, 3))
    assert parse_splits("train") == (("train", Fraction(1)),)


@pytest.mark.parametrize(
    "text",
    ["", "train=", "train=x", "train=0.9", "train=0.9,val=0.2", "train=1,val=0", "train=-1,val=2",
     "a=0.5,a=0.5", "Train=1", "a b=1", "train=nan", "train=inf", "train=1/0", "train=0.5,", "train,val",
     "../x=1"],
)  # fmt: skip
def test_malformed_splits_are_usage_errors(text):
    with pytest.raises(UsageError, match="--split"):
        parse_splits(text)


def test_shares_come_out_as_asked_and_do_not_change_with_other_groups():
    splits = parse_splits("train=0.8,val=0.1,test=0.1")
    counts = Counter(split_of(f"participant-{n}", splits, 0) for n in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert counts["val"] / 20_000 == pytest.approx(0.1, abs=0.01)
    # Golden: a changed hash would silently move recordings between training and evaluation.
    golden = "nnnnnnnnnnnnnnntntnn"  # last letters
    assert [split_of(f"participant-{n}", splits, 0)[-1] for n in range(20)] == list(golden)


def test_the_seed_moves_groups():
    splits = parse_splits("train=0.5,val=0.5")
    assert [split_of(f"g{n}", splits, 0) for n in range(64)] != [
        split_of(f"g{n}", splits, 1) for n in range(64)
    ]


@settings(deadline=None)
@given(st.text(), st.integers())
def test_any_group_lands_in_a_split(group, seed):
    splits = parse_splits("train=0.9,val=0.1")
    assert split_of(group, splits, seed) in ("train", "val")
    assert split_of(group, parse_splits("all"), seed) == "all"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.csv", "id,split\nu1,train\n\n# held out\nu2 , val\n"),
        ("s.csv", "u1,train\nu2,val\nu1,train"),
        ("s.toml", 'train = ["u1"]\nval = ["u2"]\n'),
    ],
)
def test_a_file_says_which_split(name, text):
    assert read_assignments(name, text) == {"u1": "train", "u2": "val"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("s.csv", "u1,train\nu1,val", "line 2: u1 is in train and in val"),
        ("s.csv", "u1", "line 1: is not a recording or group id"),
        ("s.csv", "u1,train,x", "line 1"),
        ("s.csv", "u1,../x", "cannot name a split"),
        ("s.csv", "\n", "names no recording"),
        ("s.toml", "train = 3", "train is not a list"),
        ("s.toml", "train = [3]", "train is not a list"),
        ("s.toml", "train", "s.toml"),
    ],
)
def test_a_malformed_file_of_splits_is_a_usage_error(name, text, words):
    with pytest.raises(UsageError, match=words):
        read_assignments(name, text)
