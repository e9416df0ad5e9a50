"""Near-duplicate pictures: perceptual hashes, and the clusters of those that differ in few bits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from align.schemas.errors import AlignError
from align.transforms.formats.media_heads import jpeg_size

_EDGE, _LOW = 32, 8
_NOISE = 2.0  # of a coefficient, in grey levels: what JPEG leaves of a flat picture


def picture_hash(jpeg: bytes) -> int:
    """A 64-bit perceptual hash: the signs of the lowest frequencies against their median.

    The method is that of pHash (Zauner 2010): grey, 32 x 32, DCT, the 8 x 8 lowest frequencies without the
    constant ones. Flat pictures have no frequencies: they all get 0.

    Raises:
        AlignError: ``bad_media``, not a picture, or one that claims more pixels than are decoded here.
    """
    jpeg_size(jpeg)
    grey = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise AlignError("bad_media", "a picture cannot be decoded; run align verify on the data set")
    small = cv2.resize(grey, (_EDGE, _EDGE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[1 : _LOW + 1, 1 : _LOW + 1].ravel()
    low = np.where(np.abs(low) < _NOISE, 0.0, low)
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def clusters(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """Number the clusters of hashes that are linked by steps of at most ``distance`` differing bits.

    Two hashes that differ in at most d of 64 bits agree on at least one of d + 1 bands of bits: only those
    that do are compared (Manku, Jain & Das Sarma 2007). The partition is that of comparing all with all.

    Args:
        hashes: uint64 [n].
        distance: bits.

    Returns:
        int64 [n], equal within a cluster.
    """
    distinct, inverse = np.unique(np.asarray(hashes, np.uint64), return_inverse=True)
    pairs = [np.zeros((0, 2), np.int64), *_close_pairs(distinct, distance)]
    left, right = np.concatenate(pairs).T
    graph = coo_matrix((np.ones(len(left), np.bool_), (left, right)), shape=(len(distinct),) * 2)
    labels = connected_components(graph, directed=False)[1]
    return np.asarray(labels[inverse], np.int64)


def _close_pairs(distinct: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.int64]]:
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in pairwise(edges):
        band = (distinct >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        here = np.arange(len(order) - 1)
        step = 1
        while len(here := here[here + step < len(order)]):
            here = here[band[order[here]] == band[order[here + step]]]
            left, right = order[here], order[here + step]
            close = np.bitwise_count(distinct[left] ^ distinct[right]) <= distance
            yield np.column_stack([left[close], right[close]])
            step += 1


def representatives(labels: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """The member of each window's cluster that stands for it: the one of the least rank.

    Args:
        labels: int64 [n], from :func:`clusters`.
        rank: int64 [n], distinct, independent of the order in which windows come.

    Returns:
        int64 [n], indices.
    """
    order = np.lexsort((rank, labels))
    first = np.concatenate([[True], np.diff(labels[order]) != 0])[: len(order)]
    found = np.empty(len(labels), np.int64)
    found[order] = order[first][np.cumsum(first) - 1]
    return found
