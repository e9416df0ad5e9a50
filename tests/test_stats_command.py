"""``align stats``: the tables say what the samples are."""

import json
from collections import Counter

from click.testing import CliRunner

from align.pipeline.cli.stats_command import stats
from align.schemas.errors import UsageError
from align.transforms.index.balance import add_index
from align.transforms.store.publish import local


def lines_of(*arguments):
    done = CliRunner(env={"COLUMNS": "160"}).invoke(stats, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def cells(lines, title, name):
    """The cells of the row that begins with a name, in the table of a title."""
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    return next(line.split() for line in lines[start:] if line.startswith(name))


def test_patterns_pairs_coverage_and_groups_are_those_of_the_samples(mixed_samples, write_dataset):
    lines = lines_of(write_dataset(mixed_samples))
    train = [s for s in mixed_samples if s.split == "train"]
    full = [s for s in train if s.audio and s.imu and s.text]
    with_imu = sum(s.imu is not None for s in train)
    assert cells(lines, "train: modalities", "image+audio+imu+text ")[1] == str(len(full))
    assert cells(lines, "train: pairs", "image+imu")[1] == str(with_imu)
    assert cells(lines, "train: coverage", "imu")[1] == str(with_imu)
    for group, windows in Counter(s.group_id for s in train).items():
        assert cells(lines, "train: groups", group)[1] == str(windows)
    assert cells(lines, "train: scenarios", "Eating")[1] == str(sum("Eating" in s.scenarios for s in train))
    assert cells(lines, "val: modalities", "all")[1] == str(len(mixed_samples) - len(train))
    assert "align index" in lines[-1]


def test_weights_and_near_duplicates_come_from_the_index(mixed_samples, write_dataset):
    out = write_dataset(mixed_samples)
    balance = add_index(local(out))
    lines = lines_of(out)
    for pattern, said in balance["classes"]["train"].items():
        assert cells(lines, "train: modalities", f"{pattern} ")[-1] == f"{said['weight']:.3g}"
    assert lines[-1].startswith("near-duplicates: 0")


def test_raw_is_the_file_itself(mixed_samples, write_dataset):
    out = write_dataset(mixed_samples)
    told = json.loads("\n".join(lines_of(out, "--json")))
    assert told.pop("balance") is None
    assert told == json.loads((out / "stats.json").read_text())


def test_nothing_written_is_shown_as_nothing(write_dataset):
    assert "align index" in lines_of(write_dataset([]))[-1]


def test_a_folder_without_a_data_set_is_refused(tmp_path):
    done = CliRunner().invoke(stats, [str(tmp_path)])
    assert isinstance(done.exception, UsageError)
