"""What the program loads, and what every command offers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

COMMANDS = ("prepare", "pretrain", "finetune", "eval", "render", "reconstruct", "presets", "doctor")
HEAVY = ("torch", "open3d", "numpy", "scipy", "lightning_fabric", "skimage")

PROBE = """
import json, sys
from ponder_cli.app import main
try:
    main({arguments!r})
except SystemExit as end:
    status = end.code or 0
print("\\n" + json.dumps([status, [name for name in {heavy!r} if name in sys.modules]]))
"""


def loaded(*arguments: str) -> tuple[int, list[str]]:
    """Exit status, and the heavy libraries that this command line loads, in a fresh process."""
    code = PROBE.format(arguments=list(arguments), heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, names = json.loads(done.stdout.splitlines()[-1])
    return status, names


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["pretrain", "--help"], 0),
        (["presets"], 0),
        (["presets", "explain", "pretrain/scannet-official"], 0),
        (["pretrain", "--preset", "dmeo"], 2),
        (["pretrain", "--set", "training.stepz=3"], 2),
        (["finetune", "--scratch", "--set", "training.steps=-1"], 2),
        (["prepare", "--help"], 0),
        (["prepare", "rgbd", "--help"], 0),
        (["prepare", "rgdb"], 2),
        (["prepare", "synthetic", "--layout", "tum"], 2),
    ],
)
def test_no_heavy_library_is_loaded_for(arguments, status):
    assert loaded(*arguments) == (status, [])


@pytest.mark.parametrize(("chosen", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_sleep_unless_told_otherwise(chosen, policy):
    code = """
import os
from ponder_cli.app import main
try:
    main(["--version"])
except SystemExit:
    print(os.environ["OMP_WAIT_POLICY"])
"""
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=rest | chosen)
    assert done.stdout.split()[-1] == policy


def test_help_names_every_command(run):
    text = run("--help").stdout
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


@pytest.mark.parametrize("command", ["pretrain", "finetune", "render", "reconstruct"])
def test_commands_with_a_preset_can_change_its_values(run, command):
    text = run(command, "--help").stdout
    assert "--preset" in text and "--set" in text


def test_version_is_that_of_the_library(run):
    from ponderv2 import __version__

    assert run("--version").stdout.split()[:2] == ["ponder", __version__]
