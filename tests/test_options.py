"""One declaration for each option: the same name and value in Python, in a file and on the command line."""

import re
from pathlib import Path

import pytest

import align
from align.pipeline.cli.config_file import as_toml, load_toml
from align.pipeline.cli.main import main
from align.pipeline.cli.options import shown
from align.pipeline.cli.reference import reference
from align.pipeline.config import PARTS, RunConfig, options
from align.schemas.errors import UsageError
from align.schemas.options import AlignOptions

ROOT = Path(__file__).parent.parent
NAMED = {"source": "ego4d", "input": "in", "output": "out"}
DECLARED = {one.flag: one for one in options()}

# Name, as text, as a value, and what the configuration holds.
SPELLINGS = [
    ("window", "2.5", 2.5, 2.5),
    ("stride", "0.1", 0.1, 0.1),
    ("anchor", "keyframe", "keyframe", "keyframe"),
    ("frames", "3", 3, 3),
    ("min_coverage", "0.5", 0.5, 0.5),
    ("require", "image, imu", ["image", "imu"], ("image", "imu")),
    ("joints", "keep", "keep", "keep"),
    ("max_image_age", "2.5", 2.5, 2.5),
    ("max_image_age", "OFF", "off", "off"),
    ("format", "webdataset,parquet", ("webdataset", "parquet"), ("webdataset", "parquet")),
    ("split", "a=0.5,b=0.5", {"a": 0.5, "b": 0.5}, "a=0.5,b=0.5"),
    ("shard_size", "1MiB", 2**20, 2**20),
    ("limit", "7", 7, 7),
    ("isolate", "off", False, False),
    ("workers", "auto", 0, 0),
    ("workers", "3", 3, 3),
    ("decode_timeout", "inf", float("inf"), float("inf")),
    ("input", 'a "b" \\ \t é', 'a "b" \\ \t é', 'a "b" \\ \t é'),
]


def printed(capsys, *arguments):
    main(["run", *arguments, "--print-config"])
    return capsys.readouterr().out


@pytest.mark.parametrize(("name", "text", "value", "held"), SPELLINGS)
def test_text_value_flag_and_file_give_the_same(name, text, value, held, capsys, tmp_path):
    config = RunConfig(**{name: value})
    assert config.flat()[name] == held
    assert RunConfig(**{name: text}) == config
    file = tmp_path / "run.toml"
    file.write_text("\n".join(as_toml(config)))
    assert RunConfig(**load_toml(file)) == config
    by_flag = printed(capsys, f"--{name.replace('_', '-')}", text)
    assert by_flag == printed(capsys, "--config", str(file)) == file.read_text() + "\n"


def test_every_option_is_declared_in_one_part_and_printed(capsys):
    assert len(DECLARED) == sum(1 for _ in options())
    keys = [line.removeprefix("# ").split()[0] for line in printed(capsys).splitlines()]
    assert [f"--{key}" for key in keys] == list(DECLARED)


def test_the_names_and_digest_of_the_manifest_stay():
    """``config_sha256`` of data sets that were written before options had parts."""
    config = RunConfig(source="ego4d", input="x")
    assert config.sample_sha256 == "93b9e89d08ec59276d7158255b6c2fb16417b01de4f9362e050251af0979ffd3"
    assert list(config.as_manifest()) == [
        *("source", "media", "clocks", "window_ns", "stride_ns", "anchor", "cross_joints", "redacted"),
        *("stereo", "unsynced", "frames", "image_size", "jpeg_quality", "audio_rate", "imu_rate"),
        *("min_coverage", "require", "max_pixels", "max_image_age_ns", "formats", "splits", "seed"),
        *("shard_size", "segment_s", "recordings", "limit", "scenarios", "exclude"),
    ]


def test_tables_are_the_parts_and_may_be_left_out(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('source = "ego4d"\n[sample]\nimage-size = 64\n[outputs]\nsplit = {a = 0.5, b = 0.5}\n')
    values = load_toml(file)
    assert values == {"source": "ego4d", "image_size": 64, "split": {"a": 0.5, "b": 0.5}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[outputs]\nwindow = 2\n", r"'window' stands in \[outputs\]; it belongs in \[sample\]"),
        ("[smaple]\nwindow = 2\n", "'smaple' is not known"),
        ("window = 1\n[sample]\nwindow = 2\n", "'window' is given twice"),
        ("image-size = 1\nimage_size = 2\n", "'image_size' is given twice"),
        ("windw = 5\n", "did you mean window"),
        ("window = \n", "Invalid value"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(text, words, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_toml(file)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("window", 0, "must be between 0.01 and 3600 seconds"),
        ("stride", 0, "must be at least 0.001 seconds"),
        ("min_coverage", float("nan"), "must be between 0 and 1"),
        ("jpeg_quality", True, ": True is not a whole number"),
        ("frames", 1.5, ": 1.5 is not a whole number"),
        ("anchor", "gird", "knows grid, narration, keyframe; not 'gird'; did you mean grid?"),
        ("shard_size", "many", ": 'many' is not a size; write e.g. 512MB"),
        ("max_image_age", 0, "must be between 0.001 and 1000000000 seconds, auto or off"),
        ("workers", "0", ": '0' is neither auto nor a positive number"),
        ("isolate", "perhaps", ": 'perhaps' is neither on nor off"),
        ("exclude", "/nowhere", "/nowhere cannot be read: No such file or directory"),
    ],
)
def test_the_library_names_the_field_and_the_command_its_flag(name, value, said, capsys):
    said = said if said.startswith(":") else f" {said}"
    with pytest.raises(UsageError) as error:
        RunConfig(**NAMED, **{name: value})
    assert str(error.value) == name + said
    if not isinstance(value, (bool, float)):
        flag = f"--{name.replace('_', '-')}"
        with pytest.raises(SystemExit):
            main(["run", flag, str(value), "--print-config"])
        assert capsys.readouterr().err == f"align: {flag}{said}\n"


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean window"):
        RunConfig(windw=2)


def test_a_stride_that_is_not_given_is_the_window():
    assert AlignOptions(window=2).stride_ns == RunConfig().but(window=2).sample.window_ns == 2 * 10**9


def test_what_a_file_said_is_read_once(tmp_path):
    file = tmp_path / "ids.txt"
    file.write_text("# no good\na\n\nb\na\n")
    config = RunConfig(**NAMED, exclude=str(file))
    assert config.inputs.excluded == ("a", "b")
    file.unlink()
    assert config.but(limit=3, clocks="").inputs.excluded == ("a", "b")
    assert config.but(exclude="").inputs.excluded == ()
    with pytest.raises(UsageError, match="cannot be read"):
        config.but(exclude=str(file))


def test_a_run_takes_plain_names(clone_input, tmp_path):
    folder = clone_input(tmp_path / "in", ["a"]).parent
    result = align.run(source="ego4d", input=str(folder), output=str(tmp_path / "out"), window=2, workers=1)
    assert result.manifest["config"]["window_ns"] == 2 * 10**9
    assert align.plan(source="ego4d", input=str(folder), window=2).windows == 2


def test_the_reference_is_made_from_the_declarations():
    assert (ROOT / "docs/options.md").read_text(encoding="utf-8").splitlines() == reference()


def test_the_readme_names_options_and_their_defaults():
    table = re.findall(r"^\| (`--.*?) \|(.*?)\|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert len(table) > 10
    for named, defaults in table:
        flags = re.findall(r"--[a-z-]+", named)
        said = [word.strip(" `").removesuffix(" s") for word in defaults.split(",")]
        if flags != ["--config"]:
            expected = [shown(DECLARED[flag]) for flag in flags]
            assert ["" if word == "none" else word for word in said] == expected, named


def test_the_parts_have_no_name_in_common():
    names = [one.name for one in options()]
    assert len(names) == len({*names, *PARTS}) - len(PARTS)
