"""Every command on small data, in a process that may neither connect to anything nor write elsewhere.

python -m tests.campaigns.faults.all_commands FOLDER   prints {command: [exit status, stderr]}, what was tried
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

FORBIDDEN = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.sendto",
    "urllib.Request",
)


def main() -> None:
    """Run all commands, print their outcomes."""
    folder = Path(sys.argv[1])
    deeds: list[str] = []

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN:
            deeds.append(f"{event} {str(arguments)[:100]}")
            raise OSError("this process has no network")
        if event in ("os.mkdir", "os.rename", "os.remove") and not _allowed(arguments[0], folder):
            deeds.append(f"{event} {str(arguments)[:100]}")

    sys.addaudithook(heard)
    import torch
    from typer.testing import CliRunner

    from ponder_cli.app import app
    from tests.scenes import box_room
    from tests.workflows.tiny import finetune_config, pretrain_config, rooms

    torch.set_num_threads(1)
    data, runs = rooms(folder / "räume data"), folder / "läufe"
    box_room.write_7scenes(folder / "meine küche", box_room.shots(2))
    presets = {}
    for name, config in (
        ("pretrain", pretrain_config(steps=1, evaluate_every=0)),
        ("finetune", finetune_config(steps=1, evaluate_every=0)),
    ):
        presets[name] = folder / f"{name} ü.yaml"
        presets[name].write_text(json.dumps(config.model_dump(mode="json")))
    model, classes = runs / "pre", runs / "fine"
    scene = ("--data", data, "--scene", "room0")
    small = ("--set", "resolution=16")
    coarse = ("--voxel", "0.1", "--set", "source.fusion.truncation=0.4", "--up-axis", "z", "--workers", "1")
    trained = ("--data", data, "--out", runs, "--name")
    commands: dict[str, tuple[object, ...]] = {
        "prepare": ("prepare", "rgbd", folder / "meine küche", "--out", folder / "bereitet", *coarse),
        "pretrain": ("pretrain", "--preset", presets["pretrain"], *trained, "pre"),
        "finetune": ("finetune", "--preset", presets["finetune"], "--scratch", *trained, "fine"),
        "eval": ("eval", classes, "--data", data),
        "features": ("features", model, *scene, "--out", folder / "merkmale.npy"),
        "render": ("render", model, *scene, "--out", folder / "bilder", "--set", "width=16"),
        "reconstruct": (
            "reconstruct",
            model,
            *scene,
            "--out",
            folder / "fläche.ply",
            *small,
            "--set",
            "crop_to_observed=false",
        ),
        "inspect": ("inspect", model),
        "export": ("export", model, "--out", folder / "öffentlich.pth"),
        "presets": ("presets",),
    }
    found = {}
    for name, words in commands.items():
        result = CliRunner().invoke(app, [str(word) for word in words], prog_name="ponder")
        found[name] = [result.exit_code, result.stderr[-600:]]
    json.dump({"commands": found, "deeds": deeds}, sys.stdout)


def _allowed(path: Any, folder: Path) -> bool:
    if isinstance(path, int):
        return True
    temporary = os.environ.get("TMPDIR", "/tmp")
    return os.path.abspath(os.fsdecode(path)).startswith((str(folder), temporary, "/dev/shm"))


if __name__ == "__main__":
    main()
