"""Broken metadata ends as its reason; the healthy recordings beside it are what they are without it."""

import json
import os

import pytest

from align.pipeline.cli.main import main

SECOND = {"window": 1, "stride": 1}
HEALTHY = ("healthy-a", "healthy-b")

ODD_NAMES = {
    "parent": "../../etc/passwd",
    "dots": "..",
    "slash": "a/b",
    "empty": "",
    "null-byte": "a\0b",
    "long": "x" * 300,
    "surrogate": "a\ud800b",
}
FINE_NAMES = {"spaces": "a b c", "quotes": 'it\'s "so"', "newline": "a\nb", "emoji": "🚪-東京", "dot": "a.b"}

ENTRIES = {
    "number-for-uid": {"video_uid": 7},
    "no-uid": {"video_uid": None},
    "text-for-duration": {"duration_sec": "long"},
    "negative-duration": {"duration_sec": -3},
    "list-for-metadata": {"video_metadata": [1, 2]},
    "surrogate": {"scenarios": ["\ud800"]},
    "unknown-fields": {"never_heard_of": {"deep": [1]}},
    "nonsense-components": {"video_components": "none"},
    "nonsense-redactions": {"has_redacted_regions": True, "redacted_intervals": [{"start_sec": "x"}]},
}


@pytest.fixture(scope="module")
def alone(align_run, clone_input, run_result, tmp_path_factory):
    return run_result(
        align_run(clone_input(tmp_path_factory.mktemp("healthy"), HEALTHY).parent, options=SECOND)
    )


def add_entries(root, entries):
    master = json.loads((root / "ego4d.json").read_text())
    template = master["videos"][0]
    for name, changes in entries.items():
        master["videos"].insert(1, {**template, "video_uid": name, **changes})
    (root / "ego4d.json").write_text(json.dumps(master))


@pytest.fixture(scope="module")
def together(align_run, clone_input, run_result, tmp_path_factory):
    root = clone_input(tmp_path_factory.mktemp("broken"), HEALTHY)
    video = (root / "full_scale/healthy-a.mp4").read_bytes()
    for name in [*ENTRIES, *FINE_NAMES.values()]:
        (root / "full_scale" / f"{name}.mp4").write_bytes(video)
    add_entries(root, {name: {"video_uid": uid} for name, uid in {**ODD_NAMES, **FINE_NAMES}.items()})
    add_entries(root, ENTRIES)
    master = json.loads((root / "ego4d.json").read_text())
    master["videos"] += [master["videos"][0], 7, None, "video", []]
    (root / "ego4d.json").write_text(json.dumps(master))
    told = json.loads((root / "annotations/narration.json").read_text())
    told |= {"surrogate": [1, 2], "unknown-fields": {"narration_pass_1": {"narrations": "none"}}, "nobody": 7}
    (root / "annotations/narration.json").write_text(json.dumps(told))
    return run_result(align_run(root.parent, options=SECOND, max_failures=1.0))


def test_healthy_recordings_are_written_whole_and_unchanged(alone, together):
    rows = {key: row for key, row in together[0].items() if row["recording_id"] in HEALTHY}
    assert rows == alone[0]
    assert [f["windows"] for f in together[1]["healthy-a"]] == [0]  # its second entry is told


def test_every_odd_entry_is_written_or_accounted_for(together):
    written = {row["recording_id"] for row in together[0].values()}
    assert set(FINE_NAMES.values()) <= written | set(together[1])
    for name in ENTRIES:
        assert name in written or name in together[1] or any(name in f["detail"] for f in together[1][""])
    assert not [uid for uid in written if "/" in uid or uid in (".", "..", "")]


def test_names_that_are_no_file_names_are_refused(together):
    lost = [f for faults in together[1].values() for f in faults if f["stage"] == "source"]
    assert len(lost) >= len(ODD_NAMES)
    assert not [row for row in together[0].values() if row["recording_id"] in ODD_NAMES.values()]


def test_keys_hold_only_safe_characters(together):
    assert together[0]
    assert not [key for key in together[0] if not key.replace("-", "").replace("_", "").isalnum()]
    assert not [key for key in together[0] if not key.isascii()]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: "\x00" * 50,
        lambda text: "[" * 100_000,
        lambda text: '{"videos": 7, "clips": []}',
    ],
    ids=["cut", "empty", "list", "zeros", "deep", "number"],
)
def test_a_master_file_that_cannot_be_trusted_is_one_line(clone_input, tmp_path, capsys, damage):
    root = clone_input(tmp_path / "in", HEALTHY)
    (root / "ego4d.json").write_text(damage((root / "ego4d.json").read_text()))
    with pytest.raises(SystemExit) as stop:
        main(["run", "--source", "ego4d", "--input", str(root.parent), "--output", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert stop.value.code in (1, 2)
    assert said.count("\n") == 1
    assert "defect" not in said
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_damaged_narration_file_costs_only_text(align_run, clone_input, run_result, tmp_path, alone):
    root = clone_input(tmp_path, HEALTHY)
    path = root / "annotations/narration.json"
    path.write_text(path.read_text()[: path.stat().st_size // 4])
    rows, faults = run_result(align_run(root.parent, options=SECOND))
    assert rows.keys() == alone[0].keys()
    for key, row in rows.items():
        assert row["image"] == alone[0][key]["image"]
        assert row["imu"] == alone[0][key]["imu"]
    assert faults


@pytest.mark.parametrize("name", ["ego4d.json", "annotations/narration.json"])
def test_a_pipe_in_place_of_metadata_is_not_waited_for(clone_input, tmp_path, capsys, name):
    root = clone_input(tmp_path / "in", HEALTHY)
    (root / name).unlink()
    os.mkfifo(root / name)
    command = ["run", "--source", "ego4d", "--input", str(root.parent), "--output", str(tmp_path / "out")]
    try:
        main([*command, "--window", "1"])
        code = 0
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr().err
    assert "defect" not in told
    if name == "ego4d.json":
        assert "ego4d.json cannot be read" in told
    assert bool(code) == (name == "ego4d.json")
