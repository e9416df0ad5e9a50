"""``align sync`` from end to end: the table, the page, what is refused, and going on after a break."""

from __future__ import annotations

import json
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from align.pipeline.cli.sync_command import sync
from align.pipeline.config import RunConfig
from align.pipeline.sync.run import SyncConfig, run_sync, sync_recording
from align.schemas.errors import UsageError
from align.schemas.time import NS, TimeSpan
from align.transforms.sync.clocks import SCHEMA, read_clocks
from align.transforms.sync.measure import Measured, nothing_to_compare
from align.transforms.sync.report import page, recording_section
from align.transforms.sync.verdict import SyncOptions
from benchmarks.proof.edits import with_edits
from benchmarks.proof.numbered import CONTAINERS, Part, write_part

KARMA, HERO7, NASA = (
    "3c8d5a26-d617-55aa-8147-3ea634376062",
    "80187c7e-4c38-5b6c-8891-d6e23814f7c2",
    "f23ef5ee-cc95-5b99-ba2a-be3b07bfd5c9",
)


@pytest.fixture(scope="module")
def ego4d() -> Path:
    folder = Path(__file__).parents[2] / "shared/data/ego4d"
    if not folder.is_dir():
        pytest.skip("the real recordings are not here")
    return folder


@pytest.fixture(scope="module")
def measured(ego4d, tmp_path_factory):
    out = tmp_path_factory.mktemp("sync")
    arguments = ["--source", "ego4d", "--input", str(ego4d), "--output", str(out / "clocks.parquet")]
    ran = CliRunner().invoke(sync, [*arguments, "--report", str(out / "sync.html")])
    return out, ran


def test_the_table_holds_a_verdict_for_every_recording(measured):
    out, ran = measured
    assert ran.exit_code == 0, ran.output
    assert pq.read_schema(out / "clocks.parquet").equals(SCHEMA)
    rows = read_clocks(out / "clocks.parquet")
    assert {r.recording_id: r.status for r in rows} == {
        KARMA: "corrected",
        HERO7: "refuted",
        NASA: "unobservable",
    }
    assert [r.offset_ns is None for r in rows] == [not r.is_known for r in rows]
    assert not (out / "clocks.parquet.parts").exists()


def test_the_summary_names_the_verdicts(measured):
    _, ran = measured
    assert "1 corrected, 1 refuted, 1 unobservable" in ran.output


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href") and v]


def test_the_page_fetches_nothing_and_shows_plots(measured):
    out, _ = measured
    found = _Page()
    found.feed((out / "sync.html").read_text(encoding="utf-8"))
    assert found.tags.count("svg") >= 6
    assert "script" not in found.tags
    assert all(link.startswith("#") for link in found.links)


def test_text_on_the_page_is_escaped():
    row = nothing_to_compare("</section><script>x()</script>", TimeSpan(0, NS), "<b>&")
    text = page([recording_section(row.recording_id, Measured((row,)))], [row])
    assert "<script" not in text
    assert "<b>" not in text


def test_finished_recordings_are_not_measured_again(ego4d, tmp_path, monkeypatch):
    run = RunConfig(source="ego4d", input=str(ego4d), recordings=(NASA, KARMA), resume=True, isolate=False)
    config = SyncConfig(run, str(tmp_path / "c.parquet"))
    config.parts.mkdir()
    from align.pipeline.job.planning import list_recordings

    nasa = next(r for r in list_recordings(run) if r.recording_id == NASA)
    sync_recording(nasa, config)
    (part,) = config.parts.iterdir()
    kept = json.loads(part.read_text())
    kept["rows"][0]["reason"] = "from the first run"
    part.write_text(json.dumps(kept))
    rows = {r.recording_id: r.reason for r in run_sync(config).rows}
    assert rows[NASA] == "from the first run"
    assert "agree" in rows[KARMA]


def test_a_missing_imu_file_costs_only_its_recording(ego4d, tmp_path):
    copy = tmp_path / "in" / "v2"
    copy.mkdir(parents=True)
    for name in ("ego4d.json", "full_scale", "annotations"):
        (copy / name).symlink_to(ego4d / "v2" / name)
    (copy / "imu").mkdir()
    (copy / "imu" / f"{KARMA}.csv").write_text("component_idx,canonical_timestamp_ms\n0,1\n")
    run = RunConfig(source="ego4d", input=str(copy.parent), recordings=(KARMA,), allow_symlinks=True)
    result = run_sync(SyncConfig(run, str(tmp_path / "c.parquet")))
    assert [r.status for r in result.rows] == ["unobservable"]
    assert len(result.failures) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"reach_s": 0.0}, "--reach"),
        ({"threshold_s": -1.0}, "--threshold"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, told, tmp_path):
    run = RunConfig(source="ego4d", input=str(tmp_path))
    with pytest.raises(UsageError, match=told):
        SyncConfig(run, str(tmp_path / "c.parquet"), "", SyncOptions(**options))


def test_a_table_that_is_there_is_not_overwritten(ego4d, tmp_path):
    (tmp_path / "c.parquet").write_text("mine")
    run = RunConfig(source="ego4d", input=str(ego4d), recordings=(NASA,))
    with pytest.raises(UsageError, match="is there already"):
        run_sync(SyncConfig(run, str(tmp_path / "c.parquet")))
    assert (tmp_path / "c.parquet").read_text() == "mine"


def test_the_folder_to_write_to_must_be_there(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        SyncConfig(RunConfig(source="ego4d", input="x"), str(tmp_path / "no" / "c.parquet"))


def test_pictures_of_an_edit_list_of_several_stretches_are_not_compared(tmp_path):
    plain = write_part(Part(0, 90, 3), CONTAINERS["MP4"], tmp_path / "plain.mp4").read_bytes()
    stretches = [(Fraction(1), Fraction(0)), (Fraction(1), Fraction(2))]
    path = tmp_path / "v2/full_scale/r.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(with_edits(plain, stretches, stretches))
    table = tmp_path / "v2/imu/r.csv"
    table.parent.mkdir()
    rows = "".join(f"{5 * k},0,0,0,0,0,9.8\n" for k in range(400))
    table.write_text("canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z\n" + rows)
    entry = {"video_uid": "r", "duration_sec": 2.0, "has_imu": True}
    (tmp_path / "v2/ego4d.json").write_text(json.dumps({"videos": [entry]}))
    clocks = tmp_path / "clocks.parquet"
    run_sync(
        SyncConfig(RunConfig(source="ego4d", input=str(tmp_path), output="", isolate=False), str(clocks))
    )
    (row,) = read_clocks(clocks)
    assert row.status == "unobservable"
    assert "edit list" in row.reason
