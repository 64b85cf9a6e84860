"""The installed package brings its presets and its encoder along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import util
from pathlib import Path

import pytest

from ponder_cli.presets import shipped_presets
from ponderv2.weights import NAMES

ROOT = Path(__file__).resolve().parents[2]
NEEDED = (
    *("ponder_cli", "ponderv2", "presets", "pyproject.toml", "setup.py", "README.md", "LICENSE"),
    *("MANIFEST.in", "constraints.txt", "start.py"),
)
WEIGHTS = {f"ponderv2/weights/{name}.{end}" for name in NAMES for end in ("safetensors", "md")}
pytestmark = pytest.mark.skipif(util.find_spec("setuptools") is None, reason="setuptools is not installed")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the checkout: building writes into it."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


def test_a_built_wheel_holds_presets_and_encoder(tmp_path, source):
    built, unpacked = tmp_path / "built", tmp_path / "unpacked"
    words = ["-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, *words, "-w", str(built), str(source)], check=True)
    (wheel,) = built.glob("ponder-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    assert all((unpacked / name).is_file() for name in WEIGHTS)
    done = subprocess.run(
        [sys.executable, "-c", "from ponder_cli.app import main; main(['presets', '--json', '-'])"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {row["preset"] for row in json.loads(done.stdout)}
    assert listed == {f"{preset.command}/{preset.name}" for preset in shipped_presets()}
    assert (unpacked / "ponder_cli" / "preset_files" / "README.md").is_file()


def test_a_source_distribution_holds_presets_and_encoder(tmp_path, source):
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (archive,) = tmp_path.glob("ponder-*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert names >= WEIGHTS | {"presets/README.md", "constraints.txt"}
