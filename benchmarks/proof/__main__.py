"""Runs the proof: prints the table of targets with the figures measured; exits 1 if one falls short."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.proof import bytes_rows, count_rows, imu_rows, media_rows, sound_rows

PARTS = {
    "media": media_rows.rows,
    "imu": imu_rows.rows,
    "counts": count_rows.rows,
    "sound": sound_rows.rows,
    "bytes": bytes_rows.rows,
}


def main(names: list[str]) -> int:
    """Run all parts, or those named."""
    short = 0
    for name in names or PARTS:
        with tempfile.TemporaryDirectory(prefix="align-proof-") as folder:
            for result in PARTS[name](Path(folder)):
                print(
                    f"{'ok  ' if result.holds else 'FAIL'}  {result.what:<60} {result.target:<26} {result.measured}",
                    flush=True,
                )
                short += not result.holds
    return min(short, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
