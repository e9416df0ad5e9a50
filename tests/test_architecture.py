"""The shape of the code itself: which way imports run, and what is cheap to import."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("schemas", "transforms", "pipeline")
# Only these speak to Beam: its import costs seconds, and pure tests must not pay it.
BEAM = {f"pipeline/{name}.py" for name in ("job/graph", "job/pooled", "job/runners", "sync/graph")}


def modules(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("layer", LAYERS)
def test_dependencies_run_one_way(layer: str) -> None:
    above = tuple(f"align.{name}" for name in LAYERS[LAYERS.index(layer) + 1 :])
    wrong = {path.name: i for path in modules(layer) for i in imports(path) if above and i.startswith(above)}
    assert not wrong


def test_only_the_wiring_imports_beam() -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for layer in LAYERS
        for path in modules(layer)
        if any(name.startswith("apache_beam") for name in imports(path, top_level=True))
    }
    assert importers <= BEAM
    assert not [p for p in modules("transforms") if any(i.startswith("apache_beam") for i in imports(p))]


def test_nothing_is_pickled() -> None:
    assert not [p for layer in LAYERS for p in modules(layer) if imports(p) & {"pickle", "dill", "shelve"}]


def test_the_command_line_is_there_without_heavy_imports() -> None:
    look = "[m for m in ('numpy', 'apache_beam', 'av') if m in sys.modules]"
    code = f"import sys, align.pipeline.cli; print({look})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_wheel_holds_exactly_the_folders(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(
        ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".*", "build", "demo", "*.egg-info")
    )
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(copy),
    ]
    subprocess.run(command, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("multimodal_align-*.whl")
    packed = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("align/")}
    on_disk = {f"align/{p.relative_to(ROOT).as_posix()}" for layer in LAYERS for p in modules(layer)}
    on_disk |= {f"align/{p.name}" for p in (ROOT / "align").iterdir() if p.is_file()}
    assert packed == on_disk
