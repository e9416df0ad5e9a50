"""Every broken IMU table ends as its reason or is read rightly; nothing else of its recording is lost."""

import os

import numpy as np
import pytest

SECOND = {"window": 1, "stride": 1}
HEALTHY = ("healthy-a", "healthy-b")


def lines(path):
    return path.read_text().splitlines()


def edited(change):
    """A fault that maps the table's rows, lists of cells with the header first."""

    def damage(path):
        table = [line.split(",") for line in lines(path)]
        path.write_text("\n".join(",".join(row) for row in change(table)) + "\n")

    return damage


def column(name, change):
    """A fault that maps the cells of one column."""

    def map_cells(table):
        place = table[0].index(name)
        return [table[0], *([*r[:place], change(r[place]), *r[place + 1 :]] for r in table[1:])]

    return edited(map_cells)


def each_time(change):
    def both(path):
        for name in ("canonical_timestamp_ms", "component_timestamp_ms"):
            column(name, change)(path)

    return both


def without(*names):
    def drop(table):
        keep = [i for i, name in enumerate(table[0]) if name not in names]
        return [[row[i] for i in keep] for row in table]

    return edited(drop)


def some(change, every=50):
    def apply(table):
        return [table[0], *(change(row) if i % every == 0 else row for i, row in enumerate(table[1:]))]

    return edited(apply)


def cell(value):
    return lambda row: [*row[:3], value, *row[4:]]


def shuffled(table):
    order = np.random.default_rng(0).permutation(len(table) - 1)
    return [table[0], *(table[1 + i] for i in order)]


def truncated(path):
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b".") + 1])


ACCL = ("accl_x", "accl_y", "accl_z")

# What is done to the table; the reason why its recording has no IMU, or None where it is read all the same.
FAULTS = {
    "empty": (lambda path: path.write_bytes(b""), "invalid"),
    "header-only": (lambda path: path.write_text(lines(path)[0] + "\n"), "invalid"),
    "missing-columns": (without("gyro_y"), "invalid"),
    "accel-missing": (without(*ACCL), "invalid"),
    "renamed-columns": (edited(lambda t: [[n.replace("gyro", "rot") for n in t[0]], *t[1:]]), "invalid"),
    "bom": (lambda path: path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()), None),
    "crlf": (lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")), None),
    "semicolons": (lambda path: path.write_text(path.read_text().replace(",", ";")), None),
    "decimal-commas": (
        lambda path: path.write_text(path.read_text().replace(",", ";").replace(".", ",")),
        None,
    ),
    "nan": (some(cell("nan")), None),
    "inf": (some(cell("inf")), None),
    "text": (some(cell("broken")), None),
    "truncated": (truncated, None),
    "duplicates": (edited(lambda t: [t[0], *(row for row in t[1:] for _ in range(2))]), None),
    "unordered": (edited(shuffled), None),
    "seconds": (each_time(lambda ms: repr(float(ms) / 1e3)), None),
    "microseconds": (each_time(lambda ms: repr(float(ms) * 1e3)), None),
    "huge-times": (each_time(lambda ms: "1e18"), "invalid"),
    "negative-times": (each_time(lambda ms: repr(float(ms) - 1e7)), "no_coverage"),
    "random": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "invalid"),
    "not-there": (lambda path: path.unlink(), "not_recorded"),
    "directory": (lambda path: (path.unlink(), path.mkdir()), "invalid"),
    "pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "invalid"),
}
# Read rightly, these give the very samples of the undamaged table.
EQUAL = ("bom", "crlf", "semicolons", "decimal-commas", "duplicates", "unordered", "microseconds")


@pytest.fixture(scope="module")
def alone(align_run, clone_input, run_result, tmp_path_factory):
    return run_result(
        align_run(clone_input(tmp_path_factory.mktemp("healthy"), HEALTHY).parent, options=SECOND)
    )


@pytest.fixture(scope="module")
def together(align_run, clone_input, run_result, tmp_path_factory):
    root = clone_input(tmp_path_factory.mktemp("broken"), [HEALTHY[0], *FAULTS, HEALTHY[1]])
    for name, (damage, _) in FAULTS.items():
        damage(root / "imu" / f"{name}.csv")
    return run_result(align_run(root.parent, options=SECOND))


def test_healthy_recordings_are_written_whole_and_unchanged(alone, together):
    rows = {key: row for key, row in together[0].items() if row["recording_id"] in HEALTHY}
    assert len(rows) == 8
    assert rows == alone[0]


@pytest.mark.parametrize("name", FAULTS)
def test_broken_table_ends_as_its_reason_and_costs_nothing_else(together, alone, name):
    rows = sorted((r for r in together[0].values() if r["recording_id"] == name), key=lambda r: r["start_ns"])
    whole = sorted(
        (r for r in alone[0].values() if r["recording_id"] == HEALTHY[0]), key=lambda r: r["start_ns"]
    )
    reasons = {dict(row["missing"]).get("imu") for row in rows}
    assert reasons == {FAULTS[name][1]}
    for row, other in zip(rows, whole, strict=True):
        assert row["image"]["bytes"] == other["image"]["bytes"]
        assert row["audio"]["bytes"] == other["audio"]["bytes"]
        assert row["text"] == other["text"]
        assert (row["imu"] is None) == (row["imu_mask"] is None) == (FAULTS[name][1] is not None)
        if name in EQUAL:
            assert row["imu"] == other["imu"]
        elif row["imu"] is not None:
            difference = np.abs(np.array(row["imu"]) - np.array(other["imu"]))
            assert np.median(difference) < 1e-4


def test_what_is_wrong_with_a_table_is_noted_without_a_place(together):
    for name, (_, reason) in FAULTS.items():
        notes = [f for f in together[1].get(name, []) if f["outcome"] == "noted"]
        assert not [n for n in notes if "pytest" in n["detail"]]
        if reason == "invalid":
            assert notes
