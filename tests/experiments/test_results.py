"""Every command beside a kept figure is one that the program takes, with settings that its preset has."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from ponder_cli.presets import load_preset, settings_of
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig, ProtocolsConfig
from tests.test_readme import parse

RESULTS = Path(__file__).resolve().parents[2] / "experiments" / "results"


def commands(name: str) -> list[str]:
    """Those of a file of figures, each once."""
    found = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return sorted({entry["command"] for entry in found.values()} - {""})


@pytest.mark.parametrize(
    "name",
    [
        "pretraining_gain_commands.json",
        "joint_rooms.json",
        "instance_rooms.json",
        "streets_depth.json",
        "streets_gain.json",
    ],
)
def test_settings_of_every_kept_command_exist(name: str) -> None:
    lines = commands(name)
    assert lines
    for line in lines:
        values = parse(shlex.split(line)[1:])
        if values["command"] == "pretrain":
            load_preset("pretrain", values["preset"], values["set_"], PretrainConfig)
        elif values["command"] == "finetune":
            load_preset("finetune", values["preset"], values["set_"], FinetuneConfig)
        else:
            assert values["command"] == "eval" and values["protocols"]
            settings_of(values["set_"], ProtocolsConfig)


@pytest.mark.parametrize("name", ["pretraining_gain_commands.json", "streets_gain.json"])
def test_runs_that_kept_commands_start_from_are_named_by_others(name: str) -> None:
    lines = commands(name)
    parsed = [parse(shlex.split(line)[1:]) for line in lines]
    made = {f"runs/{values['name']}" for values in parsed if values["command"] == "pretrain"}
    starts = {str(values["from_"]) for values in parsed if values.get("from_")}
    measured = {str(path) for values in parsed for path in values.get("checkpoints", ())}
    assert starts | {path.partition("/checkpoints/")[0] for path in measured} == made
