"""``align stats``: what a finished data set holds, in tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.table import Table

from align.pipeline.cli.echo import echo
from align.pipeline.cli.printing import console

_ROWS = 12

Shown = Mapping[str, Any]
"""A part of ``stats.json`` or of the manifest."""


@click.command()
@click.argument("out")
@click.option("--json", "raw", is_flag=True, help="Print stats.json and the manifest's balance as they are.")
def stats(out: str, raw: bool) -> None:
    """Show what a finished data set OUT holds.

    Patterns of modalities, scenarios, groups, coverage, normalisation.
    """
    from align.pipeline.storage.stores import store
    from align.schemas.errors import UsageError
    from align.transforms.check.described import read_manifest, read_stats
    from align.transforms.store.publish import strict_json

    place = store(out)
    try:
        manifest, found = read_manifest(place), read_stats(place)
    except FileNotFoundError:
        detail = f"{out} holds no finished data set; name the output folder of an align run"
        raise UsageError(detail) from None
    balance = manifest.get("balance")
    if raw:
        # DEL is the one control character that ASCII JSON leaves as it is.
        echo(*strict_json({**found, "balance": balance}, indent=2).replace("\x7f", "\\u007f").splitlines())
        return
    for split, told in found["splits"].items():
        for table in _tables(split, told, (balance or {}).get("classes", {}).get(split)):
            console.print(table)
            console.print()
    console.print(_alike(balance, out), soft_wrap=True)


def _tables(split: str, told: Shown, classes: Shown | None) -> list[Table]:
    tables = [_patterns(split, told, classes), _pairs(split, told), _modalities(split, told)]
    for title, name in (("scenarios", "scenarios"), ("groups (participants)", "groups")):
        tables += [_labels(f"{split}: {title}", told[name], told)] if told[name]["distinct"] else []
    return [*tables, _normalisation(split, told)]


def _hours(windows: int, told: Shown) -> str:
    """Windows are equally long, so their share of the windows is their share of the hours."""
    return f"{told['window_hours'] * windows / told['windows']:,.2f}" if told["windows"] else "0"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def _patterns(split: str, told: Shown, classes: Shown | None) -> Table:
    from align.transforms.index.weights import effective_number

    patterns = told["patterns"]
    known = classes if classes and classes.keys() == patterns.keys() else {}
    table = _table(f"{split}: modalities present together", "pattern", "windows", "hours", "share", "weight")
    for name, windows in _ranked(patterns):
        weight = f"{known[name]['weight']:.3g}" if name in known else ""
        share = f"{windows / told['windows']:.1%}"
        table.add_row(name, f"{windows:,}", _hours(windows, told), share, weight)
    table.add_row("all", f"{told['windows']:,}", f"{told['window_hours']:,.2f}", "", "")
    table.add_row("effective number", f"{effective_number(patterns):.2f}", "", "", "")
    return table


def _pairs(split: str, told: Shown) -> Table:
    from align.transforms.index.weights import pairs, replication

    counts = pairs(told["patterns"])
    factors = replication(counts)
    table = _table(f"{split}: pairs with the picture", "pair", "windows", "hours", "replication")
    for name, windows in _ranked(counts):
        table.add_row(f"image+{name}", f"{windows:,}", _hours(windows, told), f"x {factors[name]:.3g}")
    return table


def _modalities(split: str, told: Shown) -> Table:
    table = _table(f"{split}: coverage", "modality", "present", "full", "partial", "missing")
    for name, found in told["modalities"].items():
        tenths = found.get("coverage_tenths")
        full, partial = (f"{tenths[-1]:,}", f"{sum(tenths[:-1]):,}") if tenths else ("", "")
        lacks = ", ".join(f"{reason} {n:,}" for reason, n in found["missing"].items())
        table.add_row(name, f"{found['present']:,}", full, partial, lacks or "0")
    return table


def _labels(title: str, found: Shown, told: Shown) -> Table:
    table = _table(f"{title}, {found['distinct']:,}", "", "windows", "hours")
    ranked = _ranked(found["windows"])
    for name, windows in ranked[:_ROWS]:
        table.add_row(name, f"{windows:,}", _hours(windows, told))
    rest = sum(windows for _, windows in ranked[_ROWS:]) + found["other_windows"]
    if rest:
        table.add_row(
            f"{found['distinct'] - min(_ROWS, len(ranked)):,} others", f"{rest:,}", _hours(rest, told)
        )
    return table


def _normalisation(split: str, told: Shown) -> Table:
    from align.schemas.features import IMU_CHANNELS, IMU_UNITS

    found = told["normalisation"]
    rows = [(f"image {c}", "0 to 1", found["image"][c]) for c in "rgb"]
    rows += [("audio", "-1 to 1", found["audio"])]
    rows += [(c, unit, found["imu"][c]) for c, unit in zip(IMU_CHANNELS, IMU_UNITS, strict=True)]
    quantiles = ("0.01", "0.25", "0.5", "0.75", "0.99")
    shown = [f"{float(share):.0%}" for share in quantiles]
    table = _table(f"{split}: values", "", "unit", "mean", "std", *shown)
    for name, unit, values in rows:
        if values["n"]:
            numbers = [
                values["mean"],
                values["std"],
                *((values.get("quantiles") or {}).get(share) for share in quantiles),
            ]
            table.add_row(name, unit, *("" if n is None else f"{n:.4g}" for n in numbers))
    return table


def _alike(balance: Shown | None, out: str) -> str:
    if balance is None:
        return f"no index of weights and near-duplicates; align index {out} makes one"
    across = balance["across_splits"]
    return f"near-duplicates: {balance['duplicates']:,}, {across:,} of them of a window in another split"


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
