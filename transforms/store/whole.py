"""Whether a listed file is the one that was listed."""

from __future__ import annotations

import hashlib
from io import SEEK_END

from align.schemas.errors import AlignError
from align.transforms.store.publish import Store

_CHUNK = 1 << 20


def whole_file(store: Store, path: str, size: int, sha256: str) -> tuple[str, str] | None:
    """Code and detail of what is off: ``no_file``, ``bad_path``, ``size``, ``checksum``; None if nothing is.

    No more is read than the size that is listed.
    """
    sha, found = hashlib.sha256(), 0
    try:
        with store.open(path) as stream:
            there = stream.seek(0, SEEK_END)
            if there != size:
                return "size", f"has {there} bytes, the manifest says {size}"
            stream.seek(0)
            while found < size and (chunk := stream.read(min(_CHUNK, size - found))):
                sha.update(chunk)
                found += len(chunk)
    except OSError as error:
        return "no_file", f"cannot be read: {error.strerror or error}"
    except AlignError as error:
        return error.code, str(error)
    if sha.hexdigest() != sha256:
        return "checksum", f"is damaged: SHA-256 {sha.hexdigest()}, not {sha256}"
    return None
