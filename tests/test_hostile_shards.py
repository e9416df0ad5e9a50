"""Shards by a stranger, whose checksums hold: bombs, lies and crashes are a line each, under 1 GB."""

import importlib.util
import io
import struct
import tarfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.schemas.errors import AlignError
from align.schemas.features import COLUMNS, arrow_schema
from align.transforms.check.verify import verify
from align.transforms.formats.media_heads import flac_head, jpeg_size
from align.transforms.formats.parquet_footer import check_footer
from align.transforms.formats.tar_members import content, members
from align.transforms.index.balance import add_index
from align.transforms.load.load import load
from align.transforms.store.publish import local

_spec = importlib.util.spec_from_file_location(
    "hostile_sets", Path(__file__).with_name("test_hostile_sets.py")
)
sets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sets)

PARQUET, TAR = "data/train-00000-of-00001.parquet", "webdataset/train-000000.tar"


@pytest.fixture
def out(make_sample, write_dataset):
    made = write_dataset([make_sample(i) for i in range(4)], shards=1)
    sets.edit(made, lambda m: m["config"].update(image_size=64))
    return made


def replaced(out, column, change):
    """Change a media column of the Parquet shard and list the shard anew."""
    table = pq.read_table(out / PARQUET)
    cells = table.column(column).to_pylist()
    cells[0] = {**cells[0], "bytes": change(cells[0]["bytes"])}
    place = table.schema.get_field_index(column)
    table = table.set_column(
        place, table.schema.field(column), pa.array(cells, table.schema.field(column).type)
    )
    pq.write_table(table, out / PARQUET)
    sets.relist(out, PARQUET)


def wide_jpeg(data):
    """A JPEG whose frame header says 65000 x 65000."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", 65_000, 65_000) + data[at + 9 :]


def progressive(data):
    return data.replace(b"\xff\xc0", b"\xff\xc2", 1)


def wide_png(_):
    header = b"IHDR" + struct.pack(">IIBBBBB", 65_000, 65_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + b"\0" * 100


def long_flac(data):
    """A FLAC whose STREAMINFO claims 2^36 - 1 samples."""
    return data[:21] + bytes([data[21] | 0x0F]) + b"\xff" * 4 + data[26:]


def fast_flac(data):
    return data[:18] + b"\xff\xff\xff" + data[21:]


MEDIA = {
    "jpeg 65000": ("image", wide_jpeg, "bad_image"),
    "jpeg progressive": ("image", progressive, "bad_image"),
    "png 65000": ("image", wide_png, "bad_image"),
    "no picture": ("image", lambda _: b"", "bad_image"),
    "flac of 2^36": ("audio", long_flac, "bad_audio"),
    "flac of 1 MHz": ("audio", fast_flac, "bad_audio"),
    "no sound": ("audio", lambda _: b"fLaC", "bad_audio"),
}


@pytest.mark.parametrize(("column", "change", "code"), MEDIA.values(), ids=MEDIA.keys())
def test_media_that_claim_too_much_are_not_decoded(out, column, change, code):
    replaced(out, column, change)
    for deep in (False, True):
        assert code in {p.code for p in verify(str(out), deep=deep).problems}
    if column == "image":
        with pytest.raises(AlignError, match="cannot be decoded"):
            add_index(local(out))
    with pytest.raises(AlignError, match="cannot be decoded"):
        list(load(out))


def test_heads_are_read_as_independent_libraries_do(make_sample):
    import soundfile
    from PIL import Image

    for i in range(3):
        sample = make_sample(i)
        assert jpeg_size(sample.image.data) == Image.open(io.BytesIO(sample.image.data)).size
        info = soundfile.info(io.BytesIO(sample.audio.data))
        assert flac_head(sample.audio.data) == (info.channels, info.samplerate, info.frames)


# -- tar ------------------------------------------------------------------------------------------------


def tar_of(*named, fmt=tarfile.PAX_FORMAT, **how):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=fmt, **how) as tar:
        for name, data in named:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def special(kind):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("a.json")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    return stream.getvalue()


def header(name=b"a.json", size=b"00000000000\0", kind=b"0", tail=b""):
    block = bytearray(512)
    block[:100] = name.ljust(100, b"\0")
    block[124:136], block[156:157], block[257:265] = size, kind, b"ustar\x0000"
    block[386 : 386 + len(tail)] = tail
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(record):
    data = record.ljust(-(-len(record) // 512) * 512, b"\0")
    return header(b"x", b"%011o\0" % len(record), b"x") + data + header() + b"\0" * 1024


NPY = b"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 9999999999)}"
TARS = {
    "sparse": header(kind=b"S", tail=b"00000000000\0" + b"00000000001\0") + b"\0" * 1024,
    "symlink": special(tarfile.SYMTYPE),
    "hardlink": special(tarfile.LNKTYPE),
    "character device": special(tarfile.CHRTYPE),
    "block device": special(tarfile.BLKTYPE),
    "fifo": special(tarfile.FIFOTYPE),
    "folder": special(tarfile.DIRTYPE),
    "a size of terabytes": header(size=b"77777777777\0") + b"\0" * 1024,
    "a size in base 256": header(size=b"\x80" + b"\xff" * 11) + b"\0" * 1024,
    "a negative size": header(size=b"-0000000001\0") + b"\0" * 1024,
    "pax size": pax(b"27 size=9999999999999999999\n"),
    "pax sparse": pax(b"28 GNU.sparse.realsize=9999\n"),
    "pax header of 8 GB": header(b"x", b"77777777777\0", b"x") + b"\0" * 1024,
    "global pax": header(b"x", b"00000000000\0", b"g") + header() + b"\0" * 1024,
    "gnu long name": header(b"x", b"77777777777\0", b"L") + b"\0" * 1024,
    "cut off": tar_of(("a.json", b"{}"))[:600],
    "sum": b"a" + tar_of(("a.json", b"{}"))[1:],
    "gz": __import__("gzip").compress(tar_of(("a.json", b"{}"))),
    "empty": b"",
    "twice": tar_of(("a.json", b"{}"), ("a.json", b"{}")),
    "no sample": tar_of(("../../a", b"{}")),
    "json bomb": tar_of(("a.json", b"[" * 100_000)),
    "json no object": tar_of(("a.json", b"[]")),
    "npy of terabytes": tar_of(
        (
            "a.imu.npy",
            b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (6, 9999999999)} \n",
        ),
        ("a.json", b'{"key": "a", "missing": {}}'),
    ),
}


@pytest.mark.parametrize("data", TARS.values(), ids=TARS.keys())
def test_tars_that_no_run_writes_are_refused_in_a_line(out, data):
    (out / TAR).write_bytes(data)
    sets.relist(out, TAR)
    tracemalloc.start()
    problems = [p for p in verify(str(out)).problems if p.path == TAR]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [p.code for p in problems] in (["unreadable"], ["samples"])
    assert "\n" not in str(problems[0])
    assert peak < 200e6


names = st.text("abcXYZ09_-", min_size=1, max_size=30)
contents = st.binary(max_size=1500)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(names, contents), max_size=6))
def test_members_are_those_that_pythons_own_reader_finds(parts):
    data = tar_of(
        *((f"{name * 9}.bin" if i % 2 else f"{name}.bin", piece) for i, (name, piece) in enumerate(parts))
    )
    stream = io.BytesIO(data)
    found = [(m.name, m.offset, content(stream, m)) for m in members(stream)]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert found == [(m.name, m.offset_data, tar.extractfile(m).read()) for m in tar]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_damaged_tar_raises_nothing_else(data):
    whole = bytearray(tar_of(("a.json", b"{}"), ("b.jpg", b"x" * 700)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    stream = io.BytesIO(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    with suppress(AlignError):
        for member in members(stream):
            assert len(content(stream, member)) == member.size


def test_very_many_members_are_told_within_the_limits(out):
    block = header(b"a.x", b"00000000000\0")
    (out / TAR).write_bytes(block * 200_000 + b"\0" * 1024)
    sets.relist(out, TAR)
    code, shown, _ = sets.command("verify", out)
    assert code == 1
    assert "[unreadable]" in shown


# -- Parquet --------------------------------------------------------------------------------------------


def _varint(number):
    found = b""
    while True:
        number, low = number >> 7, number & 127
        found += bytes([low | (128 if number else 0)])
        if not number:
            return found


def _int(step, number, kind=5):
    return bytes([step << 4 | kind]) + _varint(number << 1)


def _structs(step, items):
    head = bytes([len(items) << 4 | 12]) if len(items) < 15 else b"\xfc" + _varint(len(items))
    return bytes([step << 4 | 9]) + head + b"".join(items)


def _name(step, name):
    return bytes([step << 4 | 8]) + _varint(len(name)) + name


def footer(elements, rows=0, groups=()):
    meta = _int(1, 1) + _structs(1, elements) + _int(1, rows, 6) + _structs(1, list(groups)) + b"\0"
    return b"PAR1" + meta + struct.pack("<I", len(meta)) + b"PAR1"


ROOT = _name(4, b"schema") + _int(1, 1) + b"\0"
GROUP = _int(3, 0) + _name(1, b"g") + _int(1, 1) + b"\0"
LEAF = _int(1, 1) + _int(2, 0) + _name(1, b"x") + b"\0"
ABSURD_GROUP = _structs(1, []) + _int(1, 0, 6) + _int(1, 10**15, 6) + b"\0"

FOOTERS = {
    "nested 20000 deep": footer([ROOT, *[GROUP] * 20_000, LEAF]),
    "nested 100 deep": footer([ROOT, *[GROUP] * 100, LEAF]),
    "a hundred thousand elements": footer([ROOT, *[LEAF] * 100_000]),
    "rows without columns": footer([ROOT, LEAF], 10**15, [ABSURD_GROUP]),
    "rows without groups": footer([ROOT, LEAF], 10**15),
    "a list of lists": b"PAR1" + b"\x29" + b"\x19" * 100_000 + struct.pack("<I", 100_001) + b"PAR1",
    "a string of terabytes": b"PAR1" + b"\x18" + _varint(1 << 40) + struct.pack("<I", 7) + b"PAR1",
    "a footer of gigabytes": b"PAR1" + struct.pack("<I", 0xFFFFFFFF) + b"PAR1",
    "nothing": b"",
    "text": b"key,recording\n" * 10,
}


@pytest.mark.parametrize("data", FOOTERS.values(), ids=FOOTERS.keys())
def test_footers_that_would_take_down_their_reader_are_refused(out, data):
    (out / PARQUET).write_bytes(data)
    sets.relist(out, PARQUET)
    assert "unreadable" in {p.code for p in verify(str(out)).problems if p.path == PARQUET}
    for reader in (lambda: add_index(local(out)), lambda: list(load(out))):
        with pytest.raises(AlignError) as caught:
            reader()
        assert caught.value.code == "bad_shard"


def bomb_table(rows, text_bytes):
    """A table of the schema, one long text repeated in each row."""
    schema = arrow_schema(16_000, 200)
    long = pa.array(["x" * text_bytes])
    cells = {name: pa.nulls(rows, kind) for name, kind in COLUMNS.items()}
    cells["key"] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), long)
    fields = [pa.field(f.name, cells[f.name].type) for f in schema]
    return pa.Table.from_arrays([cells[f.name] for f in fields], schema=pa.schema(fields, schema.metadata))


@pytest.mark.parametrize("codec", ["zstd", "gzip", "brotli", "lz4"])
def test_codecs_that_unfold_without_bounds_are_refused(out, codec):
    pq.write_table(pq.read_table(out / PARQUET), out / PARQUET, compression=codec)
    sets.relist(out, PARQUET)
    assert [p.code for p in verify(str(out)).problems if p.path == PARQUET] == ["unreadable"]
    with pytest.raises(AlignError, match="codec"):
        list(load(out))


def test_pages_that_unfold_to_gigabytes_end_in_a_line(out):
    schema = arrow_schema(16_000, 200)
    plain = pq.read_table(out / PARQUET)
    rows, each = 4, 1_000
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * rows * each, pa.int32()), ["x" * 1_000_000])
    text = pa.ListArray.from_arrays(pa.array(range(0, rows * each + 1, each), pa.int32()), cells)
    table = plain.set_column(schema.get_field_index("text_raw"), "text_raw", text)
    pq.write_table(table, out / PARQUET, store_schema=False)
    assert (out / PARQUET).stat().st_size < 10_000_000
    sets.relist(out, PARQUET)
    code, shown, told = sets.command("verify", out)
    assert code == 1
    assert shown.count("\n") < 12, shown + told


def test_a_dictionary_that_repeats_megabytes_ends_in_a_line(out):
    table = bomb_table(100_000, 20_000_000)
    pq.write_table(table, out / PARQUET, compression="snappy", store_schema=False)
    sets.relist(out, PARQUET, samples=100_000)
    for words in (("verify",), ("index",)):
        code, shown, told = sets.command(*words, out)
        assert code == 1
        assert len((shown + told).strip().splitlines()) < 12
    with pytest.raises((AlignError, pa.ArrowException)):
        list(load(out))


def test_an_index_with_absurd_weights_is_not_drawn_from(out):
    add_index(local(out))
    place = "index/train-00000-of-00001.parquet"
    table = pq.read_table(out / place)
    at = table.schema.get_field_index("weight")
    for absurd in (1e18, float("nan"), float("inf"), -1.0):
        changed = table.set_column(at, "weight", pa.array([absurd] * len(table)))
        pq.write_table(changed, out / place)
        with pytest.raises(AlignError) as caught:
            list(load(out, balance=True))
        assert caught.value.code == "bad_index"


def test_footers_of_our_own_shards_pass(out):
    for path in (out / PARQUET,):
        with path.open("rb") as stream:
            assert sum(check_footer(stream).rows) == pq.ParquetFile(path).metadata.num_rows
            with pytest.raises(AlignError, match="holds 4 rows"):
                check_footer(stream, 5)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_any_footer_is_read_or_refused(data):
    whole = b"PAR1" + data + struct.pack("<I", len(data)) + b"PAR1"
    with suppress(AlignError):
        check_footer(io.BytesIO(whole))
