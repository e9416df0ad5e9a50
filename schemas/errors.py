"""Expected faults. Whatever is not an :class:`AlignError` is a defect of ours and propagates."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Literal


class Reason(StrEnum):
    """Why a window lacks a modality: the values of the ``missing`` column."""

    NOT_RECORDED = "not_recorded"
    NO_COVERAGE = "no_coverage"
    GAP = "gap"
    DECODE_ERROR = "decode_error"
    REDACTED = "redacted"
    INVALID = "invalid"
    SYNC_REFUTED = "sync_refuted"
    UNSUPPORTED = "unsupported"
    ENCRYPTED = "encrypted"


Stage = Literal["usage", "source", "probe", "plan", "read", "align", "write", "commit", "verify"]


# What follows ``?`` or ``#`` in an address may be a signature, what stands before ``@`` a password.
_SIGNATURE = re.compile(r"(\w[\w+.-]*://[^\s'\"?#]*)[?#][^\s'\"]*")
_PASSWORD = re.compile(r"(\w[\w+.-]*://)[^\s'\"/@]*@")


def without_secrets(text: str) -> str:
    """The text, its addresses without query strings, fragments, users and passwords."""
    return _PASSWORD.sub(r"\1", _SIGNATURE.sub(r"\1", text))


class AlignError(Exception):
    """An expected fault of one recording, window, file or parameter.

    Args:
        code: what happened, one snake_case word that programs may rely on, e.g. ``missing_file``.
        detail: one readable line: what, where, and what to do about it.
        stage: where in the path of the data it happened.
    """

    def __init__(self, code: str, detail: str, *, stage: Stage = "read") -> None:
        super().__init__(code, detail, stage)
        self.code = code
        self.detail = without_secrets(" ".join(detail.split()))
        self.stage: Stage = stage

    def naming(self, uri: str, name: str) -> AlignError:
        """The same error, speaking of ``name`` where it spoke of ``uri``: no place, no secret, no host."""
        detail = self.detail
        for spelled in (repr(uri), uri):
            known = without_secrets(" ".join(spelled.split()))
            detail = detail.replace(known, name) if known else detail
        return _rebuild(type(self), self.code, detail, self.stage)

    def __str__(self) -> str:
        return self.detail

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.code, self.detail, self.stage))


def _rebuild(kind: type[AlignError], code: str, detail: str, stage: Stage) -> AlignError:
    if issubclass(kind, UsageError):
        return kind(detail, code=code, stage=stage)
    return kind(code, detail, stage=stage)


class UsageError(AlignError):
    """A parameter that cannot be meant: found before any work starts; exit code 2.

    Args:
        option: the option that is meant, by its name in Python; the detail then begins with it.
    """

    def __init__(self, detail: str, *, code: str = "usage", stage: Stage = "usage", option: str = "") -> None:
        super().__init__(code, detail, stage=stage)
        self.option = option


Outcome = Literal["skipped", "failed", "noted"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of ``failures.jsonl``: what a recording or window lost, and why.

    Attributes:
        recording_id: the recording, or "" where a fault belongs to none.
        start_ns: the window's start, or None when the whole recording is meant.
        outcome: ``skipped`` (by a rule), ``failed`` (by a fault), ``noted`` (nothing was lost).
        windows: how many planned windows this line accounts for (0 for notes).
    """

    recording_id: str
    start_ns: int | None
    stage: str
    code: str
    detail: str
    outcome: Outcome = "failed"
    windows: int = 1

    def as_dict(self) -> dict[str, object]:
        """The line as a JSON object."""
        return asdict(self)
