"""What a decoder may do: little, and its parent looks after its memory, too."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.process.isolation import MEMORY_BYTES, Decoder
from align.schemas.errors import Fault
from align.schemas.options import AlignOptions
from align.transforms.write.encoded import EncodedRow

SECOND = AlignOptions(window=1, stride=1)

pytestmark = pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def segment(clone_input, tmp_path_factory):
    root = clone_input(tmp_path_factory.mktemp("limits"), ["a"])
    config = RunConfig(source="ego4d", input=str(root.parent), sample=SECOND, isolate=False)
    (recording,) = list_recordings(config)
    (planned,) = plan_recording(recording, config).segments
    return planned


def test_a_decoder_that_has_decoded_may_not_write_or_open_much(segment):
    decoder = Decoder(60.0)
    try:
        assert not [i for i in decoder.samples(segment, SECOND, "c") if isinstance(i, Fault)]
        folder = Path(f"/proc/{decoder.start().pid}")
        limits, status = (folder / "limits").read_text(), (folder / "status").read_text()
    finally:
        decoder.stop()
    hard = {line[:26].strip(): line[26:].split()[1] for line in limits.splitlines()[1:]}
    assert hard["Max file size"] == "0"
    assert hard["Max core file size"] == "0"
    assert int(hard["Max open files"]) <= 128
    assert "NoNewPrivs:\t1" in status


CONFINED = """
import errno, json, sys
from align.pipeline.process.limits import confine, limit_memory
confine()
confine()
said = {}
try:
    with open(sys.argv[1], "wb", buffering=0) as file:
        file.write(b"x")
except OSError as error:
    said["write"] = errno.errorcode[error.errno]
try:
    held = [open("/dev/null") for _ in range(200)]
except OSError as error:
    said["open"] = errno.errorcode[error.errno]
held = []
limit_memory(10**8)
try:
    bytearray(10**9)
except MemoryError:
    said["memory"] = "refused"
print(json.dumps(said))
"""


def test_limits_hold_and_the_rest_works(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"write": "EFBIG", "open": "EMFILE", "memory": "refused"}


def test_a_lower_limit_of_the_user_stays():
    """As of ``ulimit -n 64``: only root could raise it again."""
    code = """
import resource
from align.pipeline.process.limits import confine, limit_memory
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
confine()
limit_memory(4 << 30)
print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_DATA)[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"(64, 64) {2 << 30}"


def test_a_system_without_these_limits_gets_by(monkeypatch):
    from align.pipeline.process import limits

    monkeypatch.setattr(limits.sys, "platform", "plan9")
    monkeypatch.setattr(limits, "_LIMITS", {"RLIMIT_OF_ANOTHER_SYSTEM": 0})
    monkeypatch.setattr(limits.sys, "dont_write_bytecode", False)
    limits.confine()
    monkeypatch.setitem(sys.modules, "resource", None)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limits.limit_memory(1)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


SWOLLEN = """
import time
from align.pipeline.process import decoder_process
from align.pipeline.process.frames import SAMPLE

true = decoder_process.read_segment

def swell(request, opener_for):
    samples = 0
    for reply in true(request, opener_for):
        samples += reply[0] == SAMPLE
        if samples == 3 and reply[0] == SAMPLE:
            held = b"x" * {size}
            time.sleep({seconds})
        yield reply

decoder_process.limit_memory = lambda size: None  # its own limit is off: a hostile program would see to that
decoder_process.TASKS["segment"] = swell
decoder_process.main()
"""


@pytest.mark.parametrize(("size", "lost"), [(MEMORY_BYTES, 2), (MEMORY_BYTES // 2, 0)])
def test_the_parent_ends_a_child_that_swells_past_its_own_limit(segment, size, lost):
    code = SWOLLEN.format(size=size, seconds=15 if lost else 0.5)
    decoder = Decoder(60.0, (sys.executable, "-c", code))
    items = list(decoder.samples(segment, SECOND, "c"))
    decoder.stop()
    assert [item.code for item in items if isinstance(item, Fault)] == ["memory_limit"] * lost
    assert len([item for item in items if isinstance(item, EncodedRow)]) == 4 - lost


TALKING = """
import sys, time
held = b"x" * {size}
out = sys.stdout.buffer
out.write(b"S" + (1 << 14).to_bytes(4, "big"))
while True:
    out.write(b"x")
    out.flush()
    time.sleep(0.05)
"""


def test_a_child_that_keeps_talking_is_looked_at_all_the_same(segment):
    code = TALKING.format(size=MEMORY_BYTES + 10**8)
    decoder = Decoder(60.0, (sys.executable, "-I", "-S", "-c", code))
    assert [item.code for item in decoder.samples(segment, SECOND, "c")] == ["memory_limit"] * 4


def test_a_decoder_needs_neither_beam_nor_a_store():
    look = "[m for m in ('apache_beam', 'boto3', 'google.cloud') if m in sys.modules]"
    code = f"""
import io, sys
from align.pipeline.process import decoder_process
sys.stdin = io.TextIOWrapper(io.BytesIO())
decoder_process.end_with = lambda _: None
decoder_process.main()
print({look}, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
