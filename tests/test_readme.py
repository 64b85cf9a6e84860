"""Every command line and every piece of Python in the documentation is one that the program takes."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from ponder_cli.app import app
from ponder_cli.presets import find_preset, load_preset, settings_of
from ponderv2.errors import PresetError
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig, ProtocolsConfig

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    "README.md",
    "presets/README.md",
    "CONTRIBUTING.md",
    "docs/formats.md",
    "docs/checkpoints.md",
    "docs/indoor.md",
    "docs/pretrained_weights.md",
)
COMMANDS = (
    *DOCUMENTS,
    "docs/driving.md",
    "docs/image_encoders.md",
    "docs/image_features.md",
    "docs/joint_training.md",
    "docs/lidar_segmentation.md",
    "docs/outdoor_pretraining.md",
    "docs/pretraining_gain.md",
    "docs/results.md",
    "docs/streets.md",
)
SETTINGS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


def start_script() -> ModuleType:
    """start.py, imported and not run."""
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(text: str, *languages: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [content for language, content in found if language in languages]


def command_lines(program: str) -> list[str]:
    """Lines of shell blocks and pieces of text in back quotes that start with the program."""
    lines: list[str] = []
    for name in COMMANDS:
        text = (ROOT / name).read_text(encoding="utf-8")
        for block in blocks(text, "bash", "console", "sh"):
            lines += [line.removeprefix("$ ").strip() for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return sorted({line for line in lines if line.startswith(f"{program} ")})


def parse(words: list[str]) -> dict[str, Any]:
    """What Typer makes of a command line. Ends with click's error for anything that it does not take."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and hasattr(command, "commands"):
        found = command.get_command(typer.Context(command), rest[0])
        if found is None:
            break
        command, _ = found, rest.pop(0)
    return {"command": command.name, **command.make_context(command.name, rest).params}


def check(words: list[str]) -> None:
    """The command line is accepted, and its preset exists and takes the settings."""
    try:
        values = parse(words)
    except typer.Exit as end:  # --help and the like
        assert end.exit_code == 0
        return
    command = values["command"]
    if command in ("show", "explain"):
        group, _, name = values["preset"].partition("/")
        find_preset(group, name)
    elif command == "finetune":
        assert (values["from_"] is None) == values["scratch"]
    if command in ("pretrain", "finetune", "render", "reconstruct"):
        preset = values["preset"] or "demo"  # fine-tuning chooses by the start
        if not preset.endswith(".yaml"):
            find_preset(command, preset)
            if command in SETTINGS:
                load_preset(command, preset, values["set_"], SETTINGS[command])
    elif command == "eval" and values["set_"]:
        settings_of(values["set_"], ProtocolsConfig)


@pytest.mark.parametrize("line", command_lines("ponder"))
def test_every_documented_command_is_accepted(line: str):
    words = shlex.split(line, comments=True)[1:]
    if words[-1] in ("...", "…"):
        words = words[:-1]
    command = typer.main.get_command(app)
    needs_more = len(words) == 1 or line in ("ponder reconstruct --method tsdf",)
    if needs_more:  # a command that is mentioned by its name
        assert words[0] in command.commands  # type: ignore[attr-defined]
        return
    if "training.stepz=3" in words:  # shown for the answer that it gets
        with pytest.raises(PresetError):
            check(words)
        return
    check(words)


def test_there_are_command_lines_to_check():
    assert len(command_lines("ponder")) >= 10


@pytest.mark.parametrize("line", command_lines("python3 start.py"))
def test_every_documented_start_is_accepted(line: str, monkeypatch: pytest.MonkeyPatch):
    start = start_script()
    parsed: list[argparse.Namespace] = []

    def environment(extra: str, index: str | None) -> Path:
        parsed.append(argparse.Namespace(extra=extra, index=index))
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "make_environment", environment)
    monkeypatch.setattr("sys.argv", ["start.py", *shlex.split(line)[2:]])
    assert start.main() == 130 and len(parsed) == 1


def test_every_command_of_the_demonstration_is_accepted():
    start = start_script()
    commands = [*start.training_commands(), *start.picture_commands("room0039")]
    for words in commands:
        check(words)
    names = [words[0] for words in commands]
    assert set(names) == {"prepare", "pretrain", "finetune", "eval", "render", "reconstruct"}
    evaluated = [words[1] for words in commands if words[0] == "eval"]
    expected = ["pretrain-demo", "pretrain-rooms_clusters", "finetune-rooms"]
    assert [Path(name).name for name in evaluated] == expected


def test_the_demonstration_looks_where_its_commands_write():
    start = start_script()
    written = [words[words.index("--out") + 1] for words in start.picture_commands("x")]
    places = [str(place) for place, _ in start.results(None)]
    assert len(written) == 3
    for out in written:
        assert any(place.startswith(out) for place in places)


def test_documented_python_compiles_and_its_names_exist():
    pieces = [piece for name in DOCUMENTS for piece in blocks((ROOT / name).read_text(), "python")]
    assert pieces
    for piece in pieces:
        tree = ast.parse(piece)
        modules = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {
                    name.asname or name.name: importlib.import_module(name.name) for name in node.names
                }
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, name.name) for name in node.names)
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in modules
            ):
                assert hasattr(modules[node.value.id], node.attr), ast.unparse(node)
