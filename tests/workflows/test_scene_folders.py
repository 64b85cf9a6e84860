"""Which folder of scenes a command works on: `--data`, then the settings, then the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ponder_cli.app import app
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.workflows import pretrain
from tests.workflows.tiny import pretrain_config, rooms

PRESET = """
{scenes}
data: {{cache_megabytes: 64, sphere_crop: null}}
model: {{head: {{kind: linear, n_classes: 3}}}}
training: {{steps: 1, batch_size: 2, device: cpu, tensorboard: false, evaluate_every: 0}}
"""
RENDER = "{scenes}\nwidth: 8\ndepth_range: [0.1, 5.0]\ncameras: {{kind: own, stride: 100}}\n"
MESH = "{scenes}\nmethod: tsdf\ntsdf: {{voxel_size: 0.2}}\nmin_component_faces: 0\n"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained on `recorded`, and another folder of scenes, `named`."""
    folder = tmp_path_factory.mktemp("places")
    for name in ("recorded", "named"):
        rooms(folder / name)
    for split in ("train", "val"):
        (folder / "named" / split / "room1").rename(folder / "named" / split / "attic")
    config = pretrain_config(steps=1, evaluate_every=0)
    pretrain.run(config, scenes=folder / "recorded", out=folder, name="pre")
    return folder


WAYS: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "a preset": lambda place: (),
    "--set": lambda place: ("--set", f"scenes={place}"),
    "--set with blanks": lambda place: ("--set", f"scenes = {place}"),
    "--set in quotes": lambda place: ("--set", f'scenes="{place}"'),
}


def words(way: str, place: Path, own: Path, preset: str) -> list[str]:
    """The options that name the folder in one of the ways."""
    line = f"scenes: {place}" if way == "a preset" else ""
    own.write_text(preset.format(scenes=line))
    return ["--preset", str(own), *WAYS[way](place)]


@pytest.mark.parametrize("way", WAYS)
def test_finetune_trains_on_the_folder_that_the_settings_name(places: Path, tmp_path: Path, way: str) -> None:
    options = words(way, places / "named", tmp_path / "own.yaml", PRESET)
    start = ["finetune", "--from", str(places / "pre"), "--out", str(tmp_path), "--name", "run"]
    ran = CliRunner().invoke(app, [*start, *options])
    assert ran.exit_code == 0, ran.output
    stored = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pth")
    assert stored.config["scenes"] == str(places / "named")
    said = " ".join(ran.output.split())
    assert f"{places / 'named'}" in said and f"checkpoint was trained on {places / 'recorded'}" in said


def test_without_a_word_it_is_the_folder_of_the_checkpoint(places: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(PRESET.format(scenes=""))
    start = ["finetune", "--from", str(places / "pre"), "--out", str(tmp_path), "--name", "run"]
    ran = CliRunner().invoke(app, [*start, "--preset", str(tmp_path / "own.yaml")])
    assert ran.exit_code == 0, ran.output
    stored = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pth")
    assert stored.config["scenes"] == str(places / "recorded")


@pytest.mark.parametrize("way", ["a preset", "--set"])
def test_data_goes_before_everything(places: Path, tmp_path: Path, way: str) -> None:
    options = words(way, places / "nowhere", tmp_path / "own.yaml", PRESET)
    start = ["finetune", "--from", str(places / "pre"), "--out", str(tmp_path), "--name", "run"]
    ran = CliRunner().invoke(app, [*start, *options, "--data", str(places / "named")])
    assert ran.exit_code == 0, ran.output
    stored = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pth")
    assert stored.config["scenes"] == str(places / "named")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("command", "preset"), [("render", RENDER), ("reconstruct", MESH)])
def test_scenes_are_rendered_and_meshed_from_the_folder_that_the_settings_name(
    places: Path, tmp_path: Path, way: str, command: str, preset: str
) -> None:
    """`attic` is a scene of that folder only."""
    options = words(way, places / "named", tmp_path / "own.yaml", preset)
    out = tmp_path / ("mesh.ply" if command == "reconstruct" else "frames")
    start = [command, str(places / "pre"), "--scene", "attic", "--split", "val", "--out", str(out)]
    ran = CliRunner().invoke(app, [*start, *options, "--json", str(tmp_path / "r.json")])
    assert ran.exit_code == 0, ran.output
    assert json.loads((tmp_path / "r.json").read_text()) and out.exists()


@pytest.mark.parametrize("way", ["a preset", "--set with blanks"])
@pytest.mark.parametrize("command", ["finetune", "render", "reconstruct"])
def test_a_folder_that_is_not_there_is_named_with_that_of_the_checkpoint(
    places: Path, tmp_path: Path, way: str, command: str
) -> None:
    preset = {"finetune": PRESET, "render": RENDER, "reconstruct": MESH}[command]
    options = words(way, places / "my_own_rooms", tmp_path / "own.yaml", preset)
    model = (
        ["--from", str(places / "pre")] if command == "finetune" else [str(places / "pre"), "--scene", "a"]
    )
    ran = CliRunner().invoke(app, [command, *model, "--out", str(tmp_path / "x.ply"), *options])
    said = " ".join(ran.output.split())
    assert ran.exit_code == 2
    assert f"{places / 'my_own_rooms'}, the folder of scenes that the settings name, is not there" in said
    assert f"--data {places / 'recorded'}" in said


@pytest.mark.parametrize("command", ["eval", "features"])
def test_a_folder_that_was_moved_away_is_asked_for(places: Path, tmp_path: Path, command: str) -> None:
    (places / "recorded").rename(places / "moved")
    try:
        more = ["--out", str(tmp_path / "out")] + (["--split", "val"] if command == "features" else [])
        ran = CliRunner().invoke(app, [command, str(places / "pre"), *more])
        assert ran.exit_code == 2 and "was trained on" in ran.output and "--data DIR" in ran.output
        ran = CliRunner().invoke(app, [command, str(places / "pre"), *more, "--data", str(places / "named")])
        assert ran.exit_code == 0, ran.output
    finally:
        (places / "moved").rename(places / "recorded")


@pytest.mark.parametrize("name", ["demo", "demo_instance"])
def test_presets_of_the_demo_follow_the_checkpoint(name: str) -> None:
    from ponder_cli.presets import load_preset
    from ponderv2.workflows.config import FinetuneConfig

    settings = load_preset("finetune", name, None, FinetuneConfig)
    assert "scenes" not in settings.model_fields_set and settings.scenes == Path("data/rooms")
