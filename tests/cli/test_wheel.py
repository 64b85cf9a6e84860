"""The installed package brings its presets along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import util
from pathlib import Path

import pytest

from ponder_cli.presets import shipped_presets

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("ponder_cli", "ponderv2", "presets", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.mark.skipif(util.find_spec("setuptools") is None, reason="setuptools is not installed")
def test_presets_are_found_in_a_built_wheel(tmp_path):
    source, built, unpacked = tmp_path / "source", tmp_path / "built", tmp_path / "unpacked"
    source.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    words = ["-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, *words, "-w", str(built), str(source)], check=True)
    (wheel,) = built.glob("ponder-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
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
