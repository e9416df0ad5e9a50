"""The flows of a window as bytes: how they travel between processes, checked on arrival.

Little-endian: the number of flows, int64; for each its start, its end and its number of points, int64 [k, 3];
then place and displacement of all points, float32 [n, 4].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from align.transforms.sync.flow import CORNERS, Flow


def flows_to_bytes(flows: Sequence[Flow]) -> bytes:
    """What :func:`flows_from_bytes` reads."""
    heads = np.array([(f.start_ns, f.end_ns, len(f.at)) for f in flows], "<i8")
    points = [np.concatenate((f.at, f.moved), axis=1, dtype="<f4") for f in flows]
    return b"".join([len(flows).to_bytes(8, "little"), heads.tobytes(), *(p.tobytes() for p in points)])


def flows_from_bytes(data: bytes) -> list[Flow]:
    """The flows of another process.

    Raises:
        ValueError: these are no flows: cut short, out of order, or with points that are nowhere.
    """
    count = int.from_bytes(data[:8], "little")
    if len(data) < 8 + 24 * count:
        raise ValueError("flows cut short")
    heads = np.frombuffer(data, "<i8", 3 * count, 8).reshape(count, 3)
    points = np.frombuffer(data, "<f4", offset=8 + 24 * count)
    starts, ends, sizes = heads.T
    if (starts >= ends).any() or (starts[1:] < ends[:-1]).any():
        raise ValueError("flows out of order")
    if (sizes < 0).any() or (sizes > CORNERS).any() or len(points) != 4 * int(sizes.sum()):
        raise ValueError("flows with other points than they say")
    if not np.isfinite(points).all():
        raise ValueError("flows with points that are nowhere")
    parts = np.split(points.reshape(-1, 4), np.cumsum(sizes)[:-1]) if count else []
    return [
        Flow(start, end, part[:, :2], part[:, 2:])
        for (start, end, _), part in zip(heads.tolist(), parts, strict=True)
    ]
