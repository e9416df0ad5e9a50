"""What a user types wrong, and what comes back: one line, the right exit code, before any work."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from align.pipeline.cli.main import main

Said = tuple[int, str, str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*arguments: str) -> Said:
        code = 0
        try:
            main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An EGO4D folder without any video."""
    path = tmp_path / "in" / "v2"
    path.mkdir(parents=True)
    (path / "ego4d.json").write_text('{"version": "v2", "videos": [], "clips": []}')
    return path.parent


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "ego5d"], "did you mean 'ego4d'"),
        (["--window", "0"], "--window must be between"),
        (["--window", "five"], "'five' is not a number of seconds"),
        (["--stride", "0"], "--stride must be at least"),
        (["--anchor", "gird"], "gird"),
        (["--frames", "0"], "--frames must be between"),
        (["--format", "parquett"], "did you mean parquet"),
        (["--require", "sound"], "--require knows image"),
        (["--split", "train=0.9"], "--split"),
        (["--shard-size", "many"], "not a size"),
        (["--workers", "-1"], "--workers"),
        (["--min-coverage", "2"], "--min-coverage must be between"),
        (["--windwo", "5"], "did you mean --window"),
        (["--max-failures", "7"], "--max-failures must be between"),
        (["--image-size", "1"], "--image-size must be between"),
        (["--media", "fullscale"], "did you mean 'full_scale'"),
        (["--recordings", "nobody"], "nobody"),
        (["--segment", "inf"], "--segment must be between"),
        (["--workers", "²"], "--workers"),
        (["--window", "1e999999999"], "not a number of seconds"),
        (["--runner", "FooRunner"], "--runner FooRunner"),
        (["--direct_num_workers", "2"], "--workers N"),
        (["--direct_running_mode", "multi_threading"], "--workers N"),
        ([], "no recordings"),
    ],
)
def test_bad_usage_is_one_clear_line_before_any_work(
    say: Callable[..., Said], folder: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    out = tmp_path / "out"
    given = {"--source": "ego4d", "--input": str(folder), "--output": str(out)}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    code, _, err = say("run", *(part for pair in given.items() for part in pair))
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--runner", "PortableRunner", "--s3_secret_access_key=hush-hush"),
        ("--runner", "DataflowRunner", "--s3_access_key_id", "hush-hush"),
        ("--runner", "PortableRunner", "--s3_session_token=hush-hush"),
        ("--runner", "PortableRunner", "--azure_connection_string=hush-hush"),
        ("--s3_secret_acess_key=hush-hush",),
        ("--direct_num_workers=hush-hush",),
    ],
    ids=["S3 key", "S3 key id", "S3 token", "Azure", "mistyped", "no number"],
)
def test_a_secret_is_neither_sent_to_a_service_nor_shown(
    say: Callable[..., Said], folder: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    given = ("--source", "ego4d", "--input", str(folder), "--output", str(out))
    code, said, err = say("run", *given, *arguments)
    assert code == 2
    assert next(a for a in arguments if a.startswith("--") and a != "--runner").partition("=")[0] in err
    assert err.count("\n") == 1
    assert "hush" not in said + err
    assert not out.exists()


def test_a_folder_that_is_not_there_is_named(say: Callable[..., Said], tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    code, _, err = say("run", "--source", "ego4d", "--input", missing, "--output", str(tmp_path / "out"))
    assert code == 2
    assert missing in err


def test_an_output_with_something_in_it_is_not_touched(
    say: Callable[..., Said], shared_ego4d: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, _, err = say("run", "--source", "ego4d", "--input", str(shared_ego4d), "--output", str(tmp_path))
    assert code == 2
    assert "not empty" in err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("missing", ["--source", "--input", "--output"])
def test_a_missing_option_is_named(say: Callable[..., Said], folder: Path, missing: str) -> None:
    given = {"--source": "ego4d", "--input": str(folder), "--output": "out"}
    del given[missing]
    code, _, err = say("run", *(part for pair in given.items() for part in pair))
    assert code == 2
    assert missing in err


def test_options_come_from_a_file_and_the_command_line_wins(
    say: Callable[..., Said], folder: Path, tmp_path: Path
) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text('source = "ego4d"\nwindow = 0\nsplit = {train = 0.5, val = 0.5}\n')
    given = ("run", "--config", str(toml), "--input", str(folder), "--output", "out")
    code, _, err = say(*given)
    assert (code, "--window" in err) == (2, True)
    code, _, err = say(*given, "--window", "5")
    assert (code, "no recordings" in err) == (2, True)


def test_a_misspelt_key_in_the_file_is_named(say: Callable[..., Said], tmp_path: Path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text("windw = 5\n")
    code, _, err = say("run", "--config", str(toml), "--output", "out")
    assert code == 2
    assert "did you mean window" in err


def test_a_plan_says_what_a_run_would_do(say: Callable[..., Said], shared_ego4d: Path) -> None:
    code, out, _ = say("plan", "--source", "ego4d", "--input", str(shared_ego4d))
    assert code == 0
    assert "redacted" in out
    assert "to write" in out


def test_a_plan_takes_the_line_of_a_run(say: Callable[..., Said], shared_ego4d: Path, tmp_path: Path) -> None:
    line = ["--source", "ego4d", "--input", str(shared_ego4d), "--output", str(tmp_path / "out")]
    code, out, _ = say("plan", *line, "--temp_location", "gs://bucket/tmp")
    assert code == 0
    assert "windows planned" in out
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_no_folder_is_refused(
    say: Callable[..., Said], shared_ego4d: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    line = ["--source", "ego4d", "--input", str(shared_ego4d), "--output", str(tmp_path / "file")]
    code, _, err = say("run", *line)
    assert code == 2
    assert "is not a folder" in err


def test_inspect_shows_every_stream(say: Callable[..., Said], shared_ego4d: Path) -> None:
    video = next((shared_ego4d / "v2/full_scale").glob("3c8d*.mp4"))
    code, out, _ = say("inspect", str(video))
    assert code == 0
    assert all(word in out for word in ("h264 854x480", "aac", "4,795 rows", "362 frames"))


def test_inspect_shows_the_gaps_of_an_imu_table(say: Callable[..., Said], tmp_path: Path) -> None:
    header = "component_idx,canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"
    rows = [f"0,{k * 5},0,0,0,0,0,9.8" for k in range(1_000) if not 400 < k < 600]
    path = tmp_path / "imu.csv"
    path.write_text("\n".join([header, *rows, rows[-1]]) + "\n")
    code, out, _ = say("inspect", str(path))
    assert code == 0
    assert "gap 2.000 to 3.000 s" in out
    assert "1 duplicate" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--help"], "align synth"), (["run", "--help"], "--min-coverage"), (["--version"], "0.1.0")],
)
def test_help_and_version_answer(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "align.pipeline.cli", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert words in shown
    assert "\\b" not in shown, "click's mark for text that is not to be wrapped"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script(say: Callable[..., Said], shell: str) -> None:
    code, out, _ = say("completion", shell)
    assert code == 0
    assert "_ALIGN_COMPLETE" in out
