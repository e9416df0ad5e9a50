"""Tracebacks of our own defects in a decoder: kept where they can be read, whatever became of the run.

To the run a defect is a lost segment like any other: a hostile file may provoke one, or only report it.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress

from align.pipeline.storage.stores import store
from align.schemas.errors import AlignError, without_secrets
from align.transforms.store.publish import publish_bytes

FOLDER = "_work/defects"


def defect_of(payload: bytes, output: str) -> AlignError:
    """What a traceback from a child becomes; the whole of it goes to the log and into the output.

    Args:
        payload: the traceback.
        output: folder or bucket of the run; "" where there is none.
    """
    text = without_secrets(payload.decode("ascii", "backslashreplace"))
    logging.getLogger(__name__).error("in the decoding process:\n%s", text)
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "no traceback")
    name = f"{FOLDER}/{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
    where = "shown with --debug"
    if output:
        with suppress(AlignError, OSError):
            publish_bytes(store(output), name, text.encode())
            where = f"in {name}"
    return AlignError("decoder_crashed", f"a defect of align in the decoder: {last[:500]}; traceback {where}")
