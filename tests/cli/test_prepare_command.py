"""`ponder prepare KIND`: a subcommand per data set, whose options are the fields of its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from ponder_cli.commands.prepare import command_of
from ponder_cli.dataset_options import flags_of, overrides_of
from ponder_cli.presets import load_preset
from ponderv2.datasets.kinds import DATASETS
from ponderv2.datasets.settings import DatasetSettings
from ponderv2.workflows.config import PrepareConfig
from tests.cli.conftest import Run


def chosen(kind: str, *words: str) -> Any:
    """The settings of the data set after a command line, as plain values."""
    command = command_of(kind, DATASETS[kind])
    values = command.make_context(kind, [str(word) for word in words]).params
    options = overrides_of(DATASETS[kind], values)
    return load_preset("prepare", kind, None, PrepareConfig, options).source.model_dump(mode="json")


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("rgbd /x", "path", "/x"),
        ("rgbd --layout tum", "layout", "tum"),
        ("rgbd --stride 3", "stride", 3),
        ("rgbd --max-frames 9", "max_frames", 9),
        ("rgbd --holdout 8", "holdout", 8),
        ("rgbd --depth-min 0.2", "depth_min", 0.2),
        ("rgbd --depth-max 5", "depth_max", 5.0),
        ("rgbd --depth-scale 0.001", "depth_scale", 0.001),
        ("rgbd --intrinsics k.txt", "intrinsics", "k.txt"),
        ("rgbd --color-intrinsics c.txt", "color_intrinsics", "c.txt"),
        ("rgbd --depth-to-color m.txt", "depth_to_color", "m.txt"),
        ("rgbd --up-axis -y", "up_axis", "-y"),
        ("rgbd --voxel 0.04", "fusion.voxel_size", 0.04),
        ("rgbd --poses traj.txt", "generic.poses", "traj.txt"),
        ("rgbd --color-dir none", "generic.color", "none"),
        ("rgbd --depth-dir d", "generic.depth", "d"),
        ("rgbd --quaternion wxyz", "generic.quaternion", "wxyz"),
        ("rgbd --direction world_to_camera", "generic.direction", "world_to_camera"),
        ("rgbd --axes opengl", "generic.axes", "opengl"),
        ("rgbd --val-scenes a* --val-scenes b", "val_scenes", ["a*", "b"]),
        ("scannet --stride 5", "stride", 5),
        ("s3dis --noxyz /2d3d", "noxyz", "/2d3d"),
        ("s3dis --no-align", "align", False),
        ("s3dis --areas Area_5", "areas", ["Area_5"]),
        ("structured3d --points panorama", "points", "panorama"),
        ("synthetic --rooms 3", "rooms", 3),
        ("synthetic --seed 7", "seed", 7),
        ("synthetic --room-size 3 4", "room_size", [3.0, 4.0]),
    ],
)
def test_every_option_sets_its_value(words: str, key: str, value: object) -> None:
    kind, *rest = words.split()
    found, usual = chosen(kind, *rest), chosen(kind)
    for part in key.split("."):
        found, usual = found[part], usual[part]
    assert found == value and usual != value


@pytest.mark.parametrize("kind", sorted(DATASETS))
def test_the_help_shows_the_options_of_one_data_set(
    run: Run, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = run("prepare", kind, "--help").stdout
    others = set().union(*(flags_of(settings) for settings in DATASETS.values())) - flags_of(DATASETS[kind])
    lines = {word for line in text.splitlines() for word in line.split() if word.startswith("--")}
    assert flags_of(DATASETS[kind]) <= lines
    assert {"--out", "--check", "--strict", "--workers", "--scheduler", "--set", "--json"} <= lines
    assert not others & lines


def test_a_file_stands_for_its_kind(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "source: {kind: synthetic, rooms: 1, val_rooms: 0, frames: 2, width: 32, height: 24}\n"
        f"out: {tmp_path / 'rooms'}\n"
    )
    result = run("prepare", file, "--seed", "3", "--workers", "1", "--json", tmp_path / "result.json")
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "result.json").read_text())["n_prepared"] == 1
    assert "--layout does not apply" in run("prepare", file, "--layout", "tum").stderr
    assert "PATH does not apply to 'synthetic'" in run("prepare", file, "/data").stderr


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("prepare", "scanet"), "ponder prepare scannet"),
        (("prepare", "mine.yaml"), "no preset file mine.yaml"),
        (("prepare", "rgbd", "--layout", "tumm", "/x"), "--layout"),
        (("prepare", "rgbd", "--stride", "0", "/x"), "--stride"),
        (("prepare", "rgbd", "--strid", "1", "/x"), "--stride"),
    ],
)
def test_mistakes_are_answered_with_what_was_meant(run: Run, words: tuple[str, ...], answer: str) -> None:
    result = run(*words)
    assert result.exit_code == 2 and answer in result.stderr and "Traceback" not in result.stderr


class ToyConfig(DatasetSettings):
    """A toy with two options."""

    pretrain_preset: ClassVar[str | None] = "capture"

    kind: Literal["toy"] = "toy"
    path: Path = Path()
    """Where it lies."""
    n_sweeps: int = 3
    """Sweeps per scene."""
    sensor: Literal["top", "side"] = "top"
    """Which of the sensors."""


def test_a_new_data_set_needs_no_change_of_the_command_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "toy", ToyConfig)
    assert "A toy with two options" in run("prepare", "--help").stdout
    text = run("prepare", "toy", "--help").stdout
    assert "--n-sweeps" in text and "top|side" in text and "Sweeps per scene. Default: 3." in text
    command = command_of("toy", ToyConfig)
    found = overrides_of(ToyConfig, command.make_context("toy", ["/x", "--n-sweeps", "5"]).params)
    assert {(one.path, one.value) for one in found} == {
        (("source", "path"), "/x"),
        (("source", "n_sweeps"), 5),
    }
    assert ToyConfig.next_command(with_frames=True) == ("pretrain", "--preset", "capture")
