"""The libraries that a data set's bytes depend on, by version: a run is resumed with the same."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = {
    "align": ("multimodal-align",),
    "apache-beam": ("apache-beam",),
    "av": ("av",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "pyarrow": ("pyarrow",),
    "scipy": ("scipy",),
    "soundfile": ("soundfile",),
}


def library_versions() -> dict[str, str]:
    """Name -> version of each library, FFmpeg and libsndfile as they are linked in included."""
    return dict(_found())


@cache
def _found() -> dict[str, str]:
    import av
    import soundfile

    found = {name: _version(packages) for name, packages in _PACKAGES.items()}
    return {**found, "ffmpeg": av.ffmpeg_version_info, "libsndfile": soundfile.__libsndfile_version__}


def _version(packages: tuple[str, ...]) -> str:
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"
