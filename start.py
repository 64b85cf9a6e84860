#!/usr/bin/env python3
"""Everything with one command: `python3 start.py demo`, or `python3 start.py test`.

Makes an environment in .venv, installs the tested versions into it, and runs the demonstration or the tests.
Stopped half-way it continues where it was. Uses the standard library alone, and pip as it is configured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
ROOMS, RUNS = Path("data/rooms"), Path("runs")
FRAMES, MESH = Path("frames"), Path("meshes/room.ply")
SHEET = FRAMES / "overview.png"
DONE = ROOT / RUNS / ".demo-done.json"
TESTED = ((3, 11), (3, 12), (3, 13))


def main() -> int:
    """Parse, make the environment, run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("demo", "test"), help="the demonstration, or the tests")
    parser.add_argument("--again", action="store_true", help="demo: repeat the steps that are done already")
    parser.add_argument(
        "--torch-index",
        metavar="URL",
        help="take torch from here; https://download.pytorch.org/whl/cpu has a smaller build without GPUs",
    )
    options, rest = parser.parse_known_args()
    if rest and options.what == "demo":
        parser.error(f"unknown: {' '.join(rest)}")
    os.chdir(ROOT)
    start = time.monotonic()
    try:
        python = make_environment("dev" if options.what == "test" else "", options.torch_index)
        if options.what == "test":
            return run_tests(python, rest)
        run_demo(python, options.again)
    except subprocess.CalledProcessError as problem:
        print(f"\nStopped: {shown(problem.cmd)} ended with status {problem.returncode}.")
        print(f"To continue: python3 start.py {options.what}")
        return problem.returncode or 1
    except KeyboardInterrupt:
        print(f"\nStopped. To continue: python3 start.py {options.what}")
        return 130
    print(f"\nDone in {(time.monotonic() - start) / 60:.1f} minutes.")
    return 0


def make_environment(extra: str, torch_index: str | None) -> Path:
    """The interpreter of .venv, with this package and the tested versions installed."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        call([find_python(), "-m", "venv", str(ENVIRONMENT)])
    stamp = ENVIRONMENT / f"installed-{extra or 'base'}"
    wanted = fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-c", "constraints.txt"]
    if torch_index:
        call([*pip, "--index-url", torch_index, "torch"])
    elif sys.platform == "linux" and not shutil.which("nvidia-smi"):
        print("No NVIDIA GPU found. For a smaller torch: --torch-index https://download.pytorch.org/whl/cpu")
    call([*pip, "-e", f".[{extra}]" if extra else "."])
    stamp.write_text(wanted)
    return python


def fingerprint() -> str:
    """Changes when what has to be installed changes."""
    content = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    return hashlib.sha256(content).hexdigest()


def find_python() -> str:
    """This interpreter if it was tested, else a tested one, else this one."""
    if sys.version_info[:2] in TESTED:
        return sys.executable
    for major, minor in TESTED:
        found = shutil.which(f"python{major}.{minor}")
        if found:
            return found
    version = ".".join(map(str, sys.version_info[:2]))
    print(f"Note: Python {version} is not among the tested versions (3.11 to 3.13).")
    return sys.executable


def run_tests(python: Path, rest: list[str]) -> int:
    """pytest in two processes, with what else was written on the command line."""
    command = [str(python), "-m", "pytest", "-n", "2", "--dist", "loadfile", *rest]
    return subprocess.run(command, check=False).returncode


def run_demo(python: Path, again: bool) -> None:
    """The six commands, one after the other. Each is skipped if it was done before in the same words."""
    done = {} if again or not DONE.exists() else json.loads(DONE.read_text())
    steps = Steps(python, done)
    for command in training_commands():
        steps.ponder(command)
    room = sorted(path.name for path in (ROOT / ROOMS / "val").iterdir() if path.is_dir())[0]
    for command in picture_commands(room):
        steps.ponder(command)
    sheet = make_contact_sheet(python)
    print("\nLook at:")
    for place, what in results(sheet):
        print(f"  {place}: {what}")


def training_commands() -> list[list[str]]:
    """Rooms, a model that renders, an encoder that saves labels, segmentation, and how good they are."""
    rendering, encoder = str(RUNS / "pretrain-demo"), str(RUNS / "pretrain-rooms_clusters")
    finetuned = str(RUNS / "finetune-rooms")
    rooms = ["--data", str(ROOMS)]
    few = ["--set", "data.budget.points_per_scene=20"]
    return [
        ["prepare", "synthetic", "--out", str(ROOMS)],
        ["pretrain", "--preset", "demo", *rooms, "--resume"],
        ["eval", rendering, *rooms],
        ["pretrain", "--preset", "rooms_clusters", *rooms, *steps(600), "--resume"],
        ["eval", encoder, *rooms, "--protocols", "linear,knn", "--baselines", *few],
        ["finetune", "--preset", "rooms", "--from", encoder, *rooms, *few, *steps(200), "--resume"],
        ["eval", finetuned, *rooms],
    ]


def steps(number: int) -> list[str]:
    """The option for another length than that of the preset."""
    return ["--set", f"training.steps={number}"]


def picture_commands(room: str) -> list[list[str]]:
    """Views of a room as the model sees it, its mesh, and views after refinement on the room's own frames."""
    pretrained, refined = str(RUNS / "pretrain-demo"), str(MESH.with_suffix(".refined.pth"))
    chosen = ["--scene", room, "--data", str(ROOMS)]
    return [
        ["render", pretrained, *chosen, "--preset", "demo", "--out", str(FRAMES / "model"), "--side-by-side"],
        ["reconstruct", pretrained, *chosen, "--preset", "demo", "--refine", "400", "--out", str(MESH)],
        ["render", refined, *chosen, "--preset", "demo", "--out", str(FRAMES / "refined"), "--side-by-side"],
    ]


def make_contact_sheet(python: Path) -> Path | None:
    """Side-by-side images without and with refinement, below each other; None where there are none."""
    folders = [ROOT / FRAMES / kind / "side_by_side" for kind in ("model", "refined")]
    chosen = [str(path) for folder in folders for path in sorted(folder.glob("*.png"))[:3]]
    if not chosen:
        return None
    subprocess.run([str(python), "-c", CONTACT_SHEET, str(SHEET), *chosen], check=True)
    return SHEET


CONTACT_SHEET = """
import sys
import numpy as np
from PIL import Image
rows = [np.asarray(Image.open(path).convert("RGB")) for path in sys.argv[2:]]
Image.fromarray(np.concatenate(rows)).save(sys.argv[1])
"""


def results(sheet: Path | None) -> list[tuple[Path, str]]:
    """What the demonstration left, and where."""
    pretrained, finetuned = RUNS / "pretrain-demo", RUNS / "finetune-rooms"
    places = [
        (
            FRAMES / "model" / "side_by_side",
            "real frame, then what the model renders",
        ),
        (FRAMES / "refined" / "side_by_side", "the same after refinement on frames of this room"),
        (FRAMES / "refined" / "depth", "rendered depth, millimetres in 16 bits"),
        (MESH, "the mesh of the room; any viewer opens it"),
        (pretrained / "previews", "held-out views during pre-training"),
        (pretrained / "evaluation-val", "views of all validation rooms beside the real ones"),
        (finetuned / "evaluation-val" / "confusion.png", "which class is taken for which"),
    ]
    return places if sheet is None else [(sheet, "some of them in one image"), *places]


class Steps:
    """Runs commands that were not run before."""

    def __init__(self, python: Path, done: dict[str, float]) -> None:
        self.python, self.done = python, done

    def ponder(self, command: list[str]) -> None:
        """One command, unless it is done already."""
        key = shlex.join(command)
        if key in self.done:
            print(f"\n$ ponder {key}\n  done before in {self.done[key]:.0f} s")
            return
        start = time.monotonic()
        print(f"\n$ ponder {shlex.join(command)}", flush=True)
        subprocess.run([str(self.python), "-m", "ponder_cli", *command], check=True)
        self.done[key] = time.monotonic() - start
        print(f"  {self.done[key]:.0f} s", flush=True)
        DONE.parent.mkdir(parents=True, exist_ok=True)
        DONE.write_text(json.dumps(self.done, indent=1))


def call(command: list[str]) -> None:
    """Show a command and run it."""
    print(f"$ {shown(command)}", flush=True)
    subprocess.run(command, check=True)


def shown(command: list[str] | str) -> str:
    """A command as one would type it."""
    return command if isinstance(command, str) else shlex.join(command)


if __name__ == "__main__":
    sys.exit(main())
