"""Planning by what the metadata says, without opening media; a run takes nothing on trust."""

import json
import re
import shutil

import pytest

from align.pipeline.cli.main import main
from align.pipeline.config import RunConfig
from align.pipeline.job.run import plan, run
from align.schemas.errors import UsageError
from align.schemas.options import AlignOptions

OPTIONS = AlignOptions(window=1)


@pytest.fixture
def without_media(synth_dataset, tmp_path):
    """The same recordings, their media and IMU tables replaced by empty files."""
    folder = tmp_path / "in"
    shutil.copytree(synth_dataset, folder)
    for name in ("full_scale", "imu"):
        for file in (folder / "v2" / name).iterdir():
            file.unlink()
            file.touch()
    return folder


def planned(folder, **changes):
    return plan(RunConfig(source="ego4d", input=str(folder), sample=OPTIONS, **changes))


def test_the_plan_is_that_of_the_media_where_the_metadata_speaks_true(synth_dataset, without_media):
    probed, trusted = planned(synth_dataset), planned(without_media, trust_metadata=True)
    assert (trusted.recordings, trusted.windows) == (probed.recordings, probed.windows)
    assert trusted.windows > 0
    assert not +trusted.lost
    assert trusted.media_s == pytest.approx(probed.media_s)
    assert trusted.output_bytes == pytest.approx(probed.output_bytes)
    assert trusted.cpu_s > 0


def test_without_trust_empty_media_are_faults(without_media):
    summary = planned(without_media)
    assert sum(summary.lost.values()) == summary.windows > 0
    assert summary.segments == 0


def test_a_recording_of_which_nothing_is_said_is_a_fault_of_its_own(without_media):
    path = without_media / "v2/ego4d.json"
    metadata = json.loads(path.read_text())
    del metadata["videos"][0]["video_metadata"], metadata["videos"][0]["duration_sec"]
    path.write_text(json.dumps(metadata))
    summary = planned(without_media, trust_metadata=True)
    assert set(summary.lost) | set(summary.notes) >= {"no_metadata"}
    assert summary.segments > 0


def test_the_command_says_the_same(without_media, capsys):
    main(["plan", "--trust-metadata", "--source", "ego4d", "--input", str(without_media), "--window", "1"])
    said = capsys.readouterr().out
    windows = planned(without_media, trust_metadata=True).windows
    assert re.search(rf"windows planned +{windows}\b", said)


def test_a_run_refuses_it(without_media, tmp_path, capsys):
    out = tmp_path / "out"
    given = {"input": str(without_media), "output": str(out), "sample": OPTIONS}
    with pytest.raises(UsageError, match="--trust-metadata is for align plan"):
        run(RunConfig(source="ego4d", trust_metadata=True, **given))
    line = ["run", "--source", "ego4d", "--input", str(without_media), "--output", str(out)]
    with pytest.raises(SystemExit) as stop:
        main([*line, "--trust-metadata"])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "--trust-metadata" in said
    assert said.count("\n") == 1
    assert not out.exists()
