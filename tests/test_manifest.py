"""The manifest accounts for every window; failures are sorted strict JSON."""

import json
from dataclasses import asdict

import pytest

from align.schemas.errors import AlignError, Fault
from align.transforms.store.publish import local, strict_json
from align.transforms.write.manifest import Counts, count, manifest, write_failures, write_manifest
from align.transforms.write.shard import ShardFile, ShardReport

REPORTS = [ShardReport("a", "train", "", 5), ShardReport("b", "train", "", 2)]
FAULTS = [
    Fault("r2", 7, "read", "truncated", "cut", "failed", 1),
    Fault("r1", None, "plan", "redacted", "blanked", "skipped", 3),
    Fault("r2", None, "plan", "redacted", "blanked", "skipped", 2),
    Fault("r1", None, "plan", "joint", "crosses", "skipped", 1),
    Fault("r0", None, "source", "unknown_file", "no entry", "noted", 0),
]


def test_counts_add_up():
    assert asdict(count(3, 14, REPORTS, FAULTS)) == {
        "recordings": 3,
        "windows_planned": 14,
        "windows_written": 7,
        "windows_skipped": {"joint": 1, "redacted": 5},
        "failed": 1,
    }


@pytest.mark.parametrize("planned", [13, 15])
def test_a_window_lost_or_doubled_is_refused(planned):
    with pytest.raises(AlignError, match="7 written") as caught:
        count(3, planned, REPORTS, FAULTS)
    assert (caught.value.code, caught.value.stage) == ("lost_windows", "commit")


def test_manifest_has_the_fields_of_the_contract_with_shards_sorted(tmp_path):
    files = [ShardFile(f"data/{name}", "parquet", "train", 1, 10, "0" * 64) for name in "cab"]
    content = manifest(
        align_version="0.1.0", source="ego4d", config={"window_ns": 5}, config_sha256="c", files=files,
        counts=Counts(1, 3, 3, {}, 0),
    )  # fmt: skip
    write_manifest(local(tmp_path), content)
    read = json.loads((tmp_path / "manifest.json").read_text())
    assert read == content
    assert set(read) == {
        "schema_version", "align_version", "source", "config", "config_sha256", "shards", "counts",
    }  # fmt: skip
    assert [s["path"] for s in read["shards"]] == ["data/a", "data/b", "data/c"]
    assert set(read["shards"][0]) == {"path", "format", "split", "samples", "bytes", "sha256"}
    assert list(tmp_path.iterdir()) == [tmp_path / "manifest.json"]


def test_failures_are_sorted_and_ascii(tmp_path):
    odd = Fault("r\ud800é\n", 1, "read", "x", 'quote " and <b>')
    write_failures(local(tmp_path), [*FAULTS, odd])
    lines = (tmp_path / "failures.jsonl").read_bytes().decode("ascii").splitlines()
    read = [Fault(**json.loads(line)) for line in lines]
    assert [(f.recording_id, f.start_ns) for f in read[:5]] == [
        ("r0", None), ("r1", None), ("r1", None), ("r2", None), ("r2", 7),
    ]  # fmt: skip
    assert read[5] == odd
    assert {"recording_id", "start_ns", "stage", "code", "detail"} <= json.loads(lines[0]).keys()


def test_no_failures_make_an_empty_file(tmp_path):
    write_failures(local(tmp_path), [])
    assert (tmp_path / "failures.jsonl").read_bytes() == b""


def test_json_is_strict():
    assert strict_json({"b": 1, "a": "\ud800"}) == '{"a": "\\ud800", "b": 1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json(float("nan"))
