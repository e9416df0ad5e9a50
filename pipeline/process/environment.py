"""How a child process of ours is started: without foreign code, in an environment of named variables.

Python puts the current folder first on the module path of ``python -m``, and a relative entry of
``PYTHONPATH`` or ``LD_LIBRARY_PATH`` means the current folder too. Work inside a data
set would run what lies in it: so ``-P``, and absolute entries only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping

_PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_NAMES = (
    *("HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP"),
    *("PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONUTF8"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "COVERAGE_PROCESS_START"),
)
_FAMILIES = ("LC_", "OPENBLAS_", "OMP_", "MKL_", "COV_CORE_")

_STORES = {
    "s3": ("AWS_", "BOTO_"),
    "gs": ("GOOGLE_", "CLOUDSDK_", "GCE_", "STORAGE_EMULATOR_HOST", "NO_GCE_CHECK"),
    "azfs": ("AZURE_",),
    "hdfs": ("HADOOP_", "HDFS", "KRB5"),
}
"""Scheme -> how the names begin of what says who we are to that store."""

_ANY_STORE = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


def python_module(name: str) -> tuple[str, ...]:
    """The command that runs a module of ours in a process of its own."""
    return (sys.executable, "-P", "-m", name)


def child_environment(stores: Iterable[str] = (), given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child process: where things lie and in which language, no credentials.

    Args:
        stores: URIs that the child itself reads or writes; what their stores ask for is passed on, too.
            Local paths need nothing.
        given: the environment to choose from; that of this process by default.
    """
    given = os.environ if given is None else given
    kept = {name: value for name, value in given.items() if name in _NAMES or name.startswith(_FAMILIES)}
    for name in _PATHS:
        if entries := [entry for entry in given.get(name, "").split(os.pathsep) if os.path.isabs(entry)]:
            kept[name] = os.pathsep.join(entries)
    beginnings = tuple(_beginnings(stores))
    return kept | {name: value for name, value in given.items() if name.upper().startswith(beginnings)}


def _beginnings(stores: Iterable[str]) -> Iterator[str]:
    schemes = {uri.partition("://")[0].lower() for uri in stores if "://" in uri}
    for scheme in sorted(schemes):
        yield from _STORES.get(scheme, ())
    if schemes:
        yield from _ANY_STORE
