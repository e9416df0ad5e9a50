"""A page that a person can judge by: the two rotations over each other, before and after, and every window.

The page is one file: plots are inline SVG, nothing is fetched, all text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from align.transforms.sync.agreement import Agreement, Check
from align.transforms.sync.clocks import ClockRow
from align.transforms.sync.explained import predicted_and_seen
from align.transforms.sync.gyro import GyroIntegral
from align.transforms.sync.line import Line
from align.transforms.sync.measure import Measured, Piece
from align.transforms.sync.sound import MeasuredSound
from align.transforms.sync.sound_match import SoundMatch

Floats = NDArray[np.float64]

_WIDTH, _HEIGHT, _MARGIN = 640, 150, 36
_SHOWN_S = 6.0
_AGREES, _DIFFERS = "#1a7f37", "#cf222e"
_COLOURS = {"verified": "#1a7f37", "corrected": "#0969da", "refuted": "#cf222e", "unobservable": "#6e7781"}
_STYLE = """body{font:14px system-ui,sans-serif;margin:2em auto;max-width:72em;color:#1f2328;padding:0 1em}
h2{font-size:1.05em;margin:2em 0 .3em}table{border-collapse:collapse}
td,th{padding:.2em .8em .2em 0;text-align:left}
.v{color:#fff;border-radius:4px;padding:0 .5em}svg{background:#f6f8fa;margin:.3em .6em .3em 0;max-width:100%}
.plots{display:flex;flex-wrap:wrap}figure{margin:0}figcaption{font-size:12px;color:#59636e}"""


def recording_section(recording_id: str, found: Measured) -> str:
    """The HTML of one recording."""
    rows = "".join(_row(r) for r in found.rows)
    plots = "".join(_plots(p, found.gyro) for p in found.pieces if found.gyro is not None)
    seen = (
        f"{found.seconds_seen:.0f} s of the picture were looked at"
        if found.pieces
        else "nothing was looked at"
    )
    return (
        f'<section id="{escape(recording_id, quote=True)}"><h2>{escape(recording_id)}</h2>'
        f"<table>{rows}</table><p>{seen}</p>{plots}</section>"
    )


def set_section(set_id: str, reference: str, found: Sequence[MeasuredSound]) -> str:
    """The HTML of a set of concurrent recordings."""
    parts = []
    for one in found:
        rows = "".join(_row(r) for r in one.rows)
        plots = "".join(_heard_offsets(p.match) for p in one.pieces if len(p.match.centres))
        parts.append(
            f"<h3>{escape(one.rows[0].recording_id)}</h3><table>{rows}</table>"
            f'<div class="plots">{plots}</div>'
        )
    clock = f"the clock of {reference}" if reference else "no clock: nothing could be compared"
    return (
        f'<section id="set-{escape(set_id, quote=True)}"><h2>Set {escape(set_id)}: {escape(clock)}</h2>'
        f"{''.join(parts)}</section>"
    )


def _heard_offsets(match: SoundMatch) -> str:
    """Each window's own offset, and the line, from the recording's clock to the shared one."""
    offsets, line = -match.offsets * 1e3, match.line
    marks = [
        (float(t), float(o), 0.0, _AGREES if agrees else _DIFFERS)
        for t, o, agrees in zip(match.centres, offsets, match.agrees, strict=True)
    ]
    ends = match.centres[[0, -1]]
    drawn = [] if line is None else [(ends, np.array([-line.offset_at(t) * 1e3 for t in ends]), "#0969da")]
    shown = np.concatenate([offsets[match.agrees] if line is not None else offsets, *(c[1] for c in drawn)])
    svg = _svg(drawn, marks, (float(shown.min()) - 1, float(shown.max()) + 1))
    return _figure(svg, "offset per window, ms (green agrees, red does not) and the line, over seconds")


def page(sections: Iterable[str], rows: Sequence[ClockRow]) -> str:
    """The whole page."""
    counts = {s: sum(r.status == s for r in rows) for s in _COLOURS}
    summary = " ".join(f"{_badge(s)} {n}" for s, n in counts.items())
    links = "".join(
        f'<tr><td>{_badge(r.status)}</td><td><a href="#{escape(r.recording_id, quote=True)}">'
        f"{escape(r.recording_id)}</a></td><td>{escape(r.stream)}</td><td>{escape(_figures(r))}</td></tr>"
        for r in rows
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>align sync</title>'
        f"<style>{_STYLE}</style></head><body><h1>Clocks</h1><p>{summary}</p><table>{links}</table>"
        f"{''.join(sections)}</body></html>\n"
    )


def _badge(status: str) -> str:
    return f'<span class="v" style="background:{_COLOURS[status]}">{escape(status)}</span>'


def _figures(row: ClockRow) -> str:
    if row.offset_ns is None or row.drift_ppm is None or row.sigma_ns is None:
        return f"{row.agreeing} of {row.windows} windows"
    return (
        f"{row.offset_ns / 1e6:+.2f} ± {row.sigma_ns / 1e6:.2f} ms, {row.drift_ppm:+.1f} ppm, "
        f"{row.agreeing} of {row.windows} windows"
    )


def _row(row: ClockRow) -> str:
    span = f"{row.start_ns / 1e9:.1f} to {row.end_ns / 1e9:.1f} s"
    cells = (_badge(row.status), escape(row.stream), span, escape(_figures(row)), escape(row.reason))
    return "<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"


def _plots(piece: Piece, gyro: GyroIntegral | None) -> str:
    agreement = piece.judgement.agreement
    if agreement is None or gyro is None:
        return ""
    check = max(agreement.checks, key=lambda c: c.window.motion)
    as_written = Line(agreement.line.at, 0.0, 0.0)
    figures = [
        _overlay("as recorded", check, agreement, gyro, as_written),
        _overlay("at the best offset", check, agreement, gyro, agreement.line),
        _offsets(agreement, gyro),
    ]
    return f'<div class="plots">{"".join(figures)}</div>'


def _overlay(name: str, check: Check, agreement: Agreement, gyro: GyroIntegral, line: Line) -> str:
    """Rotation by picture and by gyro on the axis that moves most, over a few seconds."""
    window = check.window
    predicted, seen = predicted_and_seen(window, gyro, line, agreement.mapping)
    if len(seen) < 2:
        return ""
    axis = int(np.argmax(seen.var(axis=0)))
    shown = window.end - window.start[0] <= _SHOWN_S
    times, length = window.end[shown], (window.end - window.start)[shown]
    n = min(len(times), len(seen))
    rates = [np.degrees(v[:n, axis] / length[:n]) for v in (seen, predicted)]
    seconds = times[:n] + gyro.origin_ns / 1e9
    curves = [(seconds, rates[0], "#cf222e"), (seconds, rates[1], "#0969da")]
    caption = f"{name}: picture red, gyro blue, °/s over seconds"
    return _figure(_svg(curves), caption)


def _offsets(agreement: Agreement, gyro: GyroIntegral) -> str:
    """Each window's own offset with its error, and the line."""
    known = [c for c in agreement.checks if np.isfinite(c.offset) and np.isfinite(c.sigma)]
    if not known:
        return ""
    shift = gyro.origin_ns / 1e9
    centres = np.array([c.window.centre for c in known])
    offsets = np.array([c.offset for c in known]) * 1e3
    ends = np.array([centres[0], centres[-1]])
    line = np.array([agreement.line.offset_at(t) for t in ends]) * 1e3
    marks = [
        (
            c.window.centre + shift,
            c.offset * 1e3,
            min(c.sigma * 1e3, 50.0),
            "#1a7f37" if c.agrees else "#cf222e",
        )
        for c in known
    ]
    low, high = float(min(offsets.min(), line.min())), float(max(offsets.max(), line.max()))
    svg = _svg([(ends + shift, line, "#0969da")], marks, (low - 1, high + 1))
    return _figure(svg, "offset per window, ms (green agrees, red does not) and the line, over seconds")


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _svg(
    curves: Sequence[tuple[Floats, Floats, str]],
    marks: Sequence[tuple[float, float, float, str]] = (),
    limits: tuple[float, float] | None = None,
) -> str:
    """Curves (x, y, colour) and marks (x, y, error, colour), the range of both axes beside them."""
    xs = np.concatenate([c[0] for c in curves] + [np.array([m[0] for m in marks])])
    low, high = limits or (float(min(c[1].min() for c in curves)), float(max(c[1].max() for c in curves)))
    left, right = float(xs.min()), float(xs.max())
    high, right = high + (high == low), right + (right == left)

    def at(x: float, y: float) -> tuple[float, float]:
        across = _MARGIN + (x - left) / (right - left) * (_WIDTH - 2 * _MARGIN)
        return across, 10 + (high - min(max(y, low), high)) / (high - low) * (_HEIGHT - 30)

    parts = []
    for x, y, colour in curves:
        points = " ".join("{:.1f},{:.1f}".format(*at(float(a), float(b))) for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
    for mark_x, mark_y, error, colour in marks:
        (px, top), (_, bottom), (_, middle) = (at(mark_x, mark_y + d) for d in (error, -error, 0.0))
        parts.append(
            f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{colour}"/>'
        )
        parts.append(f'<circle cx="{px:.1f}" cy="{middle:.1f}" r="3" fill="{colour}"/>')
    labels = [(2, 14, high), (2, _HEIGHT - 20, low)]
    parts += [f'<text x="{x}" y="{y}" font-size="10">{value:.4g}</text>' for x, y, value in labels]
    for place, value in ((_MARGIN, left), (_WIDTH - _MARGIN - 20, right)):
        parts.append(f'<text x="{place}" y="{_HEIGHT - 4}" font-size="10">{value:.4g}</text>')
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>'
