"""What commands ask of shards that others wrote, in the child of :mod:`align.pipeline.process.limited`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from align.pipeline.process.limited import Limited
from align.pipeline.storage.stores import store
from align.schemas.errors import AlignError
from align.transforms.check.shard import Look, Looker, look_at_shard
from align.transforms.index.scan import LOOK, By, look
from align.transforms.index.scan import Looker as IndexLooker
from align.transforms.write.shard import ShardFile


def check(root: str, file: dict[str, Any], config: dict[str, Any], deep: bool, index: str) -> dict[str, Any]:
    """In the child: look at a shard for ``align verify``."""
    return look_at_shard(store(root), ShardFile(**file), config, deep, index).to_plain()


def seen(root: str, path: str, by: By) -> dict[str, list[Any]]:
    """In the child: look at a shard for ``align index``."""
    columns: dict[str, list[Any]] = look(store(root), path, by).to_pydict()
    return columns


@contextmanager
def checking(root: str) -> Iterator[Looker]:
    """What looks at the shards of a data set for ``align verify``, in a child."""
    with Limited([root]) as child:

        def looker(file: ShardFile, config: Mapping[str, Any], deep: bool, index: str) -> Look:
            listed = {name: getattr(file, name) for name in ShardFile.__slots__}
            found = child.call(
                "check", file.bytes, root=root, file=listed, config=dict(config), deep=deep, index=index
            )
            try:
                return Look.from_plain(found)
            except (ValueError, TypeError) as error:
                raise AlignError("limits", f"the look at it came back malformed: {error}") from None

        yield looker


@contextmanager
def indexing(root: str, sizes: Mapping[str, int], threads: int) -> Iterator[IndexLooker]:
    """What looks at the shards of a data set for ``align index``, in one child for each thread.

    Args:
        root: of the data set.
        sizes: path of a shard -> its bytes.
        threads: how many ask at a time.
    """
    children = [Limited([root]) for _ in range(max(threads, 1))]
    free = list(children)

    def looker(path: str, by: By) -> pa.Table:
        child = free.pop()
        try:
            return pa.Table.from_pydict(child.call("seen", sizes[path], root=root, path=path, by=by), LOOK)
        except AlignError as error:
            raise AlignError(error.code, f"{path}: {error}; run align verify", stage="verify") from None
        except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
            raise AlignError("bad_shard", f"{path} cannot be read: {error}", stage="verify") from None
        finally:
            free.append(child)

    try:
        yield looker
    finally:
        for child in children:
            child.close()
