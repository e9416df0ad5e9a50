"""Packaging: the top-level folders become ``align.pipeline``, ``align.transforms`` and ``align.schemas``."""

from setuptools import find_packages, setup

FOLDERS = ("pipeline", "transforms", "schemas")
found = [p for f in FOLDERS for p in (f, *(f"{f}.{s}" for s in find_packages(f)))]

REQUIRES = [
    "apache-beam>=2.77,<2.78",
    "av>=18.1,<19",
    "click>=8.3,<9",
    "datasets>=5.2,<6",
    "ffmpeg-python>=0.2,<0.3",
    "imageio-ffmpeg>=0.6,<0.7",
    "numpy>=2.1,<3",
    "opencv-python-headless>=4.12,<6",
    "pillow>=12,<13",
    "pyarrow>=24,<26",
    "rich>=14,<16",
    "scipy>=1.15,<2",
    "soundfile>=0.13,<0.15",
]

EXTRAS = {
    "gcp": ["apache-beam[gcp]>=2.77,<2.78"],
    "aws": ["apache-beam[aws]>=2.77,<2.78"],
    "train": ["torch>=2.9,<3", "matplotlib>=3.10,<4"],
    "dev": [
        "apache-beam[aws]>=2.77,<2.78",
        "build>=1.3,<2",
        "filelock>=3.20,<5",
        "hypothesis>=6.140,<7",
        "kaldi-native-fbank>=1.21,<2",
        "librosa>=0.11,<0.12",
        "moto[s3,server]>=5.1,<6",
        "mypy>=1.18,<3",
        "pytest>=9,<10",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.14,<0.18",
        "setuptools>=77",
        "soxr>=1.0,<2",
        "webdataset>=1.0.2,<2",
    ],
}

setup(
    packages=["align", *(f"align.{p}" for p in found)],
    package_dir={f"align.{f}": f for f in FOLDERS},
    package_data={"align": ["py.typed"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
)
