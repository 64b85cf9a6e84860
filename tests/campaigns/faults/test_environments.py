"""Odd and broken surroundings: names, languages, homes, no network; installations that do not work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

OF_LIBRARIES = ("'/proc'", "'/proc/no-home", "torchinductor")
"""Folders for themselves that matplotlib (at home) and torch ask for when they are loaded."""


def test_every_command_works_in_odd_surroundings_without_a_network(tmp_path: Path):
    """Blanks, letters beyond ASCII, 200 characters; another time zone; the plain C language; no home."""
    folder = tmp_path / "ein Ordner mit Blanks und ümläuten"
    folder = folder / ("x" * (200 - min(len(str(folder)), 190)))
    folder.mkdir(parents=True)
    surroundings = {
        **{name: value for name, value in os.environ.items() if name not in ("LANG", "PONDER_CACHE")},
        "HOME": "/proc/no-home", "LC_ALL": "C", "TZ": "Pacific/Chatham", "TMPDIR": str(tmp_path),
    }  # fmt: skip
    words = [sys.executable, "-m", "tests.campaigns.faults.all_commands", str(folder)]
    done = subprocess.run(
        words, capture_output=True, encoding="utf-8", check=False, cwd=PROJECT, env=surroundings
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert {name: status for name, (status, _) in found["commands"].items()} == dict.fromkeys(
        found["commands"], 0
    ), {name: said for name, (status, said) in found["commands"].items() if status}
    deeds = [deed for deed in found["deeds"] if not any(folder in deed for folder in OF_LIBRARIES)]
    assert len(found["commands"]) == 10 and deeds == []


def _package(place: Path, module: str, code: str, distribution: str, version: str) -> None:
    """An installed package, as far as Python can see."""
    path = place / module.replace(".", "/")
    path.mkdir(parents=True, exist_ok=True)
    for parent in list(path.relative_to(place).parents)[:-1]:
        (place / parent / "__init__.py").touch()
    (path / "__init__.py").write_text(code)
    facts = place / f"{distribution.replace('-', '_')}-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")


SOUND = {
    "open3d": ("open3d-cpu", "0.19.0"), "skimage.measure": ("scikit-image", "0.25.0"),
    "trimesh": ("trimesh", "4.5"), "lightning_fabric": ("lightning-fabric", "2.5"),
    "tensorboard": ("tensorboard", "2.18"), "igl": ("libigl", "2.6.2"), "imageio": ("imageio", "2.37"),
    "imageio_ffmpeg": ("imageio-ffmpeg", "0.6"),
}  # fmt: skip
NO_LIBUSB = "raise OSError('libusb-1.0.so.0: cannot open shared object file: No such file or directory')"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
NO_DRIVER = """
class version: cuda = "12.6"
class cuda:
    device_count = staticmethod(lambda: 0)
"""


@pytest.mark.parametrize(
    ("broken", "name", "fix"),
    [
        ({"open3d": (NO_LIBUSB, "open3d-cpu", "0.20.0")}, "open3d-cpu", "pip install libusb-package"),
        ({"igl": (KILLED, "libigl", "2.6.2")}, "libigl", "pip install --force-reinstall libigl"),
        ({"spconv.pytorch": (KILLED, "spconv-cu120", "2.3.6")}, "spconv-cu120", 'pip install "numpy<2"'),
        ({"torch": (NO_DRIVER, "torch", "2.10.0")}, "gpu", "nvidia-smi"),
        ({}, "spconv-cu120", 'pip install "ponder[cuda]"'),
    ],
    ids=["no libusb", "a base library dies", "numpy 2 with cu120", "no driver", "no spconv"],
)
def test_doctor_names_what_is_broken_and_the_command_that_mends_it(
    tmp_path: Path, broken: dict[str, tuple[str, str, str]], name: str, fix: str
):
    """Packages that fail as the real ones do, asked by the real doctor in processes of its own."""
    place = tmp_path / "site"
    place.mkdir()
    for module, (distribution, version) in SOUND.items():
        if module not in broken:
            _package(place, module, "", distribution, version)
    for module, (code, distribution, version) in broken.items():
        _package(place, module, code, distribution, version)
    if "spconv.pytorch" in broken:
        _package(place, "numpy2", "", "numpy", "2.4.6")
    surroundings = {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{PROJECT}"}

    def ponder(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "ponder_cli", *words]
        return subprocess.run(
            line, capture_output=True, text=True, check=False, cwd=tmp_path, env=surroundings
        )

    done = ponder("doctor", "--json", str(tmp_path / "doctor.json"))
    report = json.loads((tmp_path / "doctor.json").read_text())
    findings = {one["name"]: one for one in (report if isinstance(report, list) else report["findings"])}
    assert findings[name]["fix"] == fix, findings[name]
    assert findings[name]["state"] in ("broken", "missing")
    assert done.returncode == (2 if name == "libigl" else 0), done.stderr
    assert ponder("--help").returncode == 0
