"""What describes a data set, read as if a stranger had written it."""

from __future__ import annotations

from typing import Any

from align.schemas.errors import AlignError, UsageError
from align.schemas.features import SCHEMA_VERSION
from align.schemas.manifest import check_manifest, check_places, check_stats
from align.transforms.store.bounded import read_bounded_json
from align.transforms.store.publish import Store

_MANIFEST, _STATS = "manifest.json", "stats.json"


def read_manifest(store: Store) -> dict[str, Any]:
    """The manifest of a data set, every field of known type, every path inside the data set.

    Raises:
        FileNotFoundError: there is none.
        AlignError: ``bad_manifest``, ``bad_path``, ``bad_json``.
        UsageError: it is of a version that this code does not know.
    """
    content = versioned(read_bounded_json(store, _MANIFEST))
    manifest = check_manifest(content)
    check_places(manifest)
    return manifest


def versioned(content: Any) -> Any:
    """The content itself, if its version is ours.

    Raises:
        AlignError: ``bad_manifest``, it has none.
        UsageError: it is another.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int:
        raise AlignError("bad_manifest", "manifest.json has no schema_version", stage="verify")
    if version != SCHEMA_VERSION:
        detail = f"manifest.json has schema version {version}, this is {SCHEMA_VERSION}: update align"
        raise UsageError(detail, code="schema_version")
    return content


def read_stats(store: Store) -> dict[str, Any]:
    """The statistics of a data set.

    Raises:
        FileNotFoundError: there are none.
        AlignError: ``bad_stats``, ``bad_json``.
    """
    return check_stats(read_bounded_json(store, _STATS))
