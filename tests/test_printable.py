"""What stands in data reaches no terminal as a command: controls and direction marks are shown."""

import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.pipeline.cli.echo import echo
from align.pipeline.cli.printing import console
from align.pipeline.sources.ego4d.metadata import check_file_name
from align.schemas.errors import AlignError, Fault
from align.schemas.printable import printable

CLI = Path(__file__).parent.parent / "pipeline" / "cli"
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b1A\u202e\u2066\u2028\x7f[bold]x[/foo]\r\nall: everything holds"
BAD = {c for c in map(chr, range(0x110000)) if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
BAD |= {c for c in map(chr, range(0x110000)) if unicodedata.bidirectional(c) in BIDI}
COMMANDS = (
    ("verify",), ("verify", "--debug"), ("inspect",), ("stats",), ("stats", "--json"), ("index",)
)  # fmt: skip
OURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]")
"""What rich and a pseudo terminal send of their own: colours, moves of a bar, line ends."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, zürich 東京 🚪 [bold]", "plain, zürich 東京 🚪 [bold]"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b\x7f", r"\x9b\x7f"),
        ("\u202eabc\u2069", r"\u202eabc\u2069"),
        ("\u200e\u200f\u2028\u2029", r"\u200e\u200f\u2028\u2029"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_terminal_obeys_is_shown(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters() | st.sampled_from(sorted(BAD))))
def test_nothing_that_unicode_calls_a_control_or_embedding_is_left(text):
    shown = printable(text)
    assert not BAD & set(shown)
    assert printable(shown) == shown
    if not BAD & set(text) and not set(text) & set("\u061c\u200e\u200f\ufff9\ufffa\ufffb"):
        assert shown == text


def test_no_command_prints_any_other_way():
    """A print, an echo or a console of one's own would go around what makes texts printable."""
    ways = (r"^\s*print\(", r"click\.s?echo\(", r"(?<!Safe)Console\(", "from_markup", r"sys\.std\w+\.write")
    others = re.compile("|".join(ways), re.MULTILINE)
    found = {p.name: others.findall(p.read_text()) for p in CLI.glob("*.py") if others.search(p.read_text())}
    assert set(found) <= {"echo.py", "printing.py"}


def test_markup_in_data_is_text(capsys):
    from rich.table import Table

    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL, style="red", soft_wrap=True)
    echo(EVIL, EVIL)
    said = capsys.readouterr().out
    assert "[bold]x[/foo]" in said
    assert not BAD & set(said) - {"\n"}


@pytest.fixture
def hostile(make_sample, write_dataset):
    """A data set with such text wherever text may stand, its checksums right."""
    from dataclasses import replace

    text = EVIL.replace("\r\n", " ")
    samples = [make_sample(i, text=(text,), scenarios=(text,)) for i in range(3)]
    samples = [replace(s, group_id=f"{text}{i}") for i, s in enumerate(samples)]
    faults = [Fault(text, None, "plan", text, text, "noted", 0)]
    out = write_dataset(samples, shards=1, faults=faults, source=EVIL)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["config"][EVIL] = EVIL
    manifest["align_version"] = EVIL
    manifest["splits"] = {EVIL: {"windows": 1, "groups": 9}}
    (out / "manifest.json").write_text(json.dumps(manifest))
    (out / "data" / "x\x1b[2J\u202e[bold]").touch()
    return out


def on_terminal(*words):
    """Exit code and everything that a terminal would be sent."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "align.pipeline.cli", *words]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "300"}
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    sent = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        sent += piece
    os.close(ours)
    return child.wait(), sent.decode()


def by_pipe(*words):
    command = [sys.executable, "-P", "-m", "align.pipeline.cli", *words]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "300"})
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize("way", [on_terminal, by_pipe])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_passes_on_what_stands_in_a_data_set(hostile, words, way):
    name, *options = words
    code, sent = way(name, str(hostile), *options)
    assert code in (0, 1)
    left = OURS.sub("", sent)
    assert not BAD & set(left) - {"\n"}, ascii(left)
    assert "owned" not in left or r"\x1b]0;owned" in left or r"\u001b]0;owned" in left
    assert not re.search(r"^all: everything holds", sent, re.MULTILINE)
    assert "defect" not in sent


def test_paths_and_options_are_shown_too(tmp_path):
    run = ("run", "--source", EVIL, "--input", EVIL, "--output", EVIL)
    for words in (("verify", str(tmp_path / EVIL)), ("inspect", EVIL), (EVIL,), run):
        code, sent = by_pipe(*words)
        assert code in (1, 2)
        assert not BAD & set(sent) - {"\n"}
        assert sent.count("\n") == 1


@pytest.mark.parametrize(
    "uid", ["a\u202eb", "a\x1bb", "a\x9bb", "a\u2066", "\u200fx", "a\u2028b", "a\x7f", "a\ud800"]
)
def test_ids_that_no_file_should_have_are_refused(uid):
    with pytest.raises(AlignError) as caught:
        check_file_name(uid)
    assert caught.value.code == "bad_id"


@pytest.mark.parametrize("uid", ["=cmd()", "@sum", "zürich", "東京", "a b"])
def test_ids_that_are_only_odd_are_kept(uid):
    check_file_name(uid)
