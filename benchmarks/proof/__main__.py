"""Runs the proof: prints the table of targets with the figures measured; exits 1 if a row falls short.

``python -m benchmarks.proof`` runs all of it, ``python -m benchmarks.proof sound counts`` some parts.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.proof import (
    bytes_rows,
    clock_rows,
    count_rows,
    imu_rows,
    lying_rows,
    media_rows,
    odd_rows,
    sound_rows,
)
from benchmarks.proof.job import Result

PARTS = {
    "media": media_rows.rows,
    "lying": lying_rows.rows,
    "imu": imu_rows.rows,
    "counts": count_rows.rows,
    "sound": sound_rows.rows,
    "bytes": bytes_rows.rows,
    "odd": odd_rows.rows,
    "clocks": clock_rows.rows,
}
_LINE = "{:<5} {:<62} {:<34} {}"


def main(names: list[str]) -> int:
    """Run all parts, or those named; the exit code."""
    unknown = sorted(set(names) - PARTS.keys())
    if unknown:
        print(f"unknown: {', '.join(unknown)}; the parts are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    results: list[Result] = []
    print(_LINE.format("", "what", "target", "measured"), flush=True)
    for name in names or PARTS:
        with tempfile.TemporaryDirectory(prefix="align-proof-") as folder:
            for result in PARTS[name](Path(folder)):
                verdict = "ok" if result.holds else "FAIL"
                print(_LINE.format(verdict, result.what, result.target, result.measured), flush=True)
                results.append(result)
    short = sum(not r.holds for r in results)
    print(f"{len(results) - short} of {len(results)} rows hold")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
