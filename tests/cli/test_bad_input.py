"""Everything that users get wrong or that breaks under them: one message, one fix, and nothing is lost."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from ponder_cli.app import app
from ponderv2.data.scene_folder import open_folder
from ponderv2.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ponderv2.workflows import finetune, pretrain
from tests.scenes import box_room
from tests.training.processes import run_ranks
from tests.workflows.tiny import finetune_config, pretrain_config, rooms

COARSE = ("--voxel", 0.06, "--set", "source.fusion.truncation=0.24", "--set", "check.n_pixels=100")
OPEN = ("--set", "model.encoder=null", "--set", "model.head.n_classes=null")
OWN = (*OPEN, "--set", "data.features=[color, normal]", "--set", "data.voxel.size=0.2")
"""For encoders of `pretrained`."""
Files = dict[str, bytes]


def ponder(*words: object) -> Any:
    """The program, in this process."""
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="ponder")


def prepare(source: Path, out: Path, *words: object) -> Any:
    """One recording, in this process."""
    return ponder("prepare", "rgbd", source, "--out", out, "--workers", 1, *COARSE, *words)


def refused(result: Any, *named: object) -> str:
    """The message: status 2, one error that names these, one line on what to do, no traceback."""
    text = result.stderr
    lines = text.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    assert result.exit_code == 2, text
    assert len(errors) == 1 and "Traceback" not in text, text
    assert text.count(errors[0].removeprefix("error: ")) == 1, text
    assert all(str(name) in errors[0] for name in named), text
    assert lines[lines.index(errors[0]) + 1].startswith("  try: "), text
    return text


def contents(folder: Path) -> Files:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A recording of two frames in the layout of 7-Scenes."""
    box_room.write_7scenes(tmp_path / "room", box_room.shots(2))
    return tmp_path / "room"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scene store."""
    return rooms(tmp_path_factory.mktemp("store") / "rooms")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """A run of one step."""
    config = pretrain_config(steps=1, evaluate_every=0)
    return pretrain.run(config, scenes=scenes, out=tmp_path_factory.mktemp("runs"), name="pre").folder


# Recordings


def test_a_missing_folder(tmp_path: Path) -> None:
    refused(prepare(tmp_path / "nothing", tmp_path / "out"), tmp_path / "nothing")
    refused(ponder("pretrain", "--data", tmp_path / "nothing", "--out", tmp_path), tmp_path / "nothing")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_frames(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(prepare(tmp_path / "empty", tmp_path / "out"), tmp_path / "empty")
    refused(ponder("pretrain", "--data", tmp_path / "empty", "--out", tmp_path), tmp_path / "empty")


def _cut(path: Path, kept: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])


def _cut_pictures(room: Path) -> str:
    for path in room.glob("*.depth.png"):
        _cut(path, 0.5)
    return "frame-000000.depth.png"


def _nan_poses(room: Path) -> str:
    for path in room.glob("*.pose.txt"):
        path.write_text("nan " * 16)
    return "pose"


@pytest.mark.parametrize("damage", [_cut_pictures, _nan_poses])
def test_a_recording_that_broke_leaves_the_scene_that_was_prepared_from_it(
    room: Path, tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    out = tmp_path / "out"
    assert prepare(room, out).exit_code == 0
    before = contents(out / "train")
    name = damage(room)
    refused(prepare(room, out), "train/room", name)
    assert contents(out / "train") == before
    assert len(open_folder(out).read("room").frames) == 2


def test_one_truncated_picture_and_one_nan_pose_cost_these_frames_only(tmp_path: Path) -> None:
    box_room.write_7scenes(tmp_path / "room", box_room.shots(4))
    _cut(tmp_path / "room/frame-000001.color.png", 0.5)
    (tmp_path / "room/frame-000002.pose.txt").write_text("nan " * 16)
    result = prepare(tmp_path / "room", tmp_path / "out")
    assert result.exit_code == 0
    assert "frame-000001.color.png" in result.stderr and "not finite" in result.stderr
    assert [one.id for one in open_folder(tmp_path / "out").read("room").frames] == [
        "frame-000000",
        "frame-000003",
    ]


def test_a_truncated_sens_file(tmp_path: Path) -> None:
    path = box_room.write_sens(tmp_path / "sens", box_room.shots(2))
    _cut(path, 0.9)
    refused(prepare(path, tmp_path / "out"), path)


def test_a_truncated_ply_file(tmp_path: Path) -> None:
    box_room.write_replica(tmp_path / "replica", box_room.shots(2))
    ply = tmp_path / "replica_mesh.ply"
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    ply.write_text(f"ply\nformat ascii 1.0\nelement vertex 3\n{axes}end_header\n0 0 0\n1 0 0\n")
    refused(prepare(tmp_path / "replica", tmp_path / "out"), ply)


def test_counts_of_depth_and_colour_that_differ_are_repaired(room: Path, tmp_path: Path) -> None:
    (room / "frame-000001.depth.png").unlink()
    result = prepare(room, tmp_path / "out")
    assert result.exit_code == 0
    assert "train/room: 1 frames without depth" in result.stderr
    assert len(open_folder(tmp_path / "out").read("room").frames) == 1


def test_a_camera_that_is_not_square_works(room: Path, tmp_path: Path) -> None:
    assert prepare(room, tmp_path / "out", "--up-axis", "z").exit_code == 0
    scene = open_folder(tmp_path / "out").read("room")
    lens = scene.frames[0].camera.intrinsics
    assert float(lens[0, 0]) == pytest.approx(70.0) and float(lens[1, 1]) == pytest.approx(62.0)
    away = box_room.distance_to_room(scene.cloud.coord.numpy().astype(float))
    assert np.median(away) < 0.015


def test_a_camera_file_that_is_missing_and_one_that_is_no_camera(room: Path, tmp_path: Path) -> None:
    file = tmp_path / "camera.txt"
    refused(prepare(room, tmp_path / "out", "--color-intrinsics", file), file)
    file.write_text("1 2 3")
    assert str(file) in prepare(room, tmp_path / "out", "--depth-to-color", file).stderr


# Presets


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("--preset", "dmeo"), "--preset demo"),
        (("--set", "training.stepz=3"), "training.steps"),
        (("--set", "training.optimiser.kind=sdg"), "training.optimiser.kind=sgd"),
        (("--set", "training.precision=bf61"), "training.precision=bf16"),
    ],
)
def test_a_misspelt_preset_key_or_kind(tmp_path: Path, words: tuple[str, str], near: str) -> None:
    text = refused(ponder("pretrain", *words, "--out", tmp_path / "runs"), words[1].split("=")[-1][:4])
    assert near in text
    assert not (tmp_path / "runs").exists()


def test_a_value_of_another_type(tmp_path: Path) -> None:
    result = ponder("pretrain", "--set", "training.steps=many", "--out", tmp_path / "runs")
    assert result.exit_code == 2
    assert "'training.steps'" in result.stderr and "integer" in result.stderr


# Checkpoints


class _Hostile:
    """A pickle that makes a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def _truncated(folder: Path, run: Path) -> Path:
    path = folder / "cut.pth"
    path.write_bytes((run / "checkpoints/last.pth").read_bytes()[:-5000])
    return path


def _hostile(folder: Path, run: Path) -> Path:
    path = folder / "hostile.pth"
    path.write_bytes(pickle.dumps({"state_dict": _Hostile(folder / "touched")}, protocol=2))
    return path


def _hostile_archive(folder: Path, run: Path) -> Path:
    path = folder / "hostile.pth"
    torch.save({"format": "ponder", "model": _Hostile(folder / "touched")}, path)
    return path


def _foreign(folder: Path, run: Path) -> Path:
    path = folder / "foreign.pth"
    torch.save({"weights": torch.zeros(3)}, path)
    return path


def _other_weights(folder: Path, run: Path) -> Path:
    """Says that it is one model and holds the weights of another."""
    stored = load_checkpoint(run / "checkpoints/last.pth")
    path = folder / "other.pth"
    model = {f"{name}.x": value for name, value in stored.model.items()}
    save_checkpoint(path, Checkpoint(stored.kind, stored.config, model))
    return path


@pytest.mark.parametrize("make", [_truncated, _hostile, _hostile_archive, _foreign, _other_weights])
def test_a_checkpoint_that_is_no_checkpoint(
    tmp_path: Path, scenes: Path, pretrained: Path, make: Callable[[Path, Path], Path]
) -> None:
    path = make(tmp_path, pretrained)
    before = path.read_bytes()
    words = ("--scene", "room0", "--data", scenes, "--out")
    for result in (
        ponder("eval", path, "--data", scenes),
        ponder("render", path, *words, tmp_path / "frames"),
        ponder("reconstruct", path, *words, tmp_path / "mesh.ply"),
        ponder("finetune", "--from", path, "--data", scenes, "--out", tmp_path, *OPEN),
    ):
        refused(result, path.name)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_of_another_kind(tmp_path: Path, scenes: Path) -> None:
    config = finetune_config(steps=1, evaluate_every=0)
    folder = finetune.run(config, scenes=scenes, out=tmp_path, name="classes").folder
    result = ponder("render", folder, "--scene", "room0", "--out", tmp_path / "frames")
    refused(result, "segmentation model")


def test_an_encoder_of_another_size(tmp_path: Path, scenes: Path, pretrained: Path) -> None:
    encoder = "{kind: sparse_unet, in_channels: 6, channels: [16, 16], layers: [1, 1]}"
    words = ("--set", f"model.encoder={encoder}", "--set", "data.features=[color, normal]")
    result = ponder(
        "finetune", "--from", pretrained, "--out", tmp_path, *words, "--set", "model.head.n_classes=3"
    )
    assert "--set model.encoder=null" in refused(result, "of another model")


# Labels and probes


def test_a_misspelt_protocol(pretrained: Path, scenes: Path) -> None:
    text = refused(ponder("eval", pretrained, "--data", scenes, "--protocols", "knn,liner"), "'liner'")
    assert "purity,knn,linear" in text
    assert ponder("finetune", "--from", pretrained, "--protocol", "liner").exit_code == 2


def test_scenes_without_labels(tmp_path: Path, scenes: Path, pretrained: Path) -> None:
    bare = shutil.copytree(scenes, tmp_path / "rooms")
    for path in bare.rglob("segment.npy"):
        path.unlink()
    for words in (
        ("eval", pretrained, "--protocols", "knn"),
        ("eval", pretrained, "--protocols", "purity"),
        ("finetune", "--from", pretrained, "--out", tmp_path, *OWN),
    ):
        text = refused(ponder(*words, "--data", bare), "no labels 'segment'")
        assert "prepare the scenes with labels, or --set data.label_field=NAME with one of: instance" in text


def test_labels_that_are_all_missing(tmp_path: Path, scenes: Path, pretrained: Path) -> None:
    bare = shutil.copytree(scenes, tmp_path / "rooms")
    for path in bare.rglob("segment.npy"):
        np.save(path, np.full_like(np.load(path), -1))
    for words in (
        ("eval", pretrained, "--protocols", "linear"),
        ("finetune", "--from", pretrained, "--protocol", "linear", "--out", tmp_path, *OWN),
    ):
        text = refused(ponder(*words, "--data", bare))
        assert "try: --set data.label_field=NAME, or prepare the scenes with labels" in text


def test_a_budget_of_more_rooms_than_there_are(tmp_path: Path, scenes: Path, pretrained: Path) -> None:
    words = ("--data", scenes, "--set", "data.budget.scenes=1000")
    for result in (
        ponder("eval", pretrained, "--protocols", "knn", *words),
        ponder("finetune", "--from", pretrained, "--out", tmp_path, *OWN, *words),
    ):
        assert "--set data.budget.scenes=2" in refused(result, "1000 labelled scenes asked for, 2 there")


def test_classes_without_a_point_in_the_budget(tmp_path: Path, scenes: Path, pretrained: Path) -> None:
    """One room and one point: a model of one class, and a warning that names the others."""
    words = ("--data", scenes, "--set", "data.budget={scenes: 1, points_per_scene: 1}")
    for result in (
        ponder("eval", pretrained, "--protocols", "knn,linear", "--baselines", *words),
        ponder("finetune", "--from", pretrained, "--protocol", "linear", "--out", tmp_path, *OWN, *words),
    ):
        assert result.exit_code == 0, result.stderr
        (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning:")]
        assert "2 of 3 classes have no labelled point in 'train'" in warning
        assert sum(name in warning for name in ("wall", "floor", "ceiling")) == 2


def test_weights_that_are_not_numbers(tmp_path: Path, scenes: Path, pretrained: Path) -> None:
    stored = load_checkpoint(pretrained / "checkpoints/last.pth")
    name = next(one for one in stored.model if one.startswith("backbone.") and one.endswith("weight"))
    spoiled = {**stored.model, name: torch.full_like(stored.model[name], torch.nan)}
    save_checkpoint(tmp_path / "nan.pth", Checkpoint(stored.kind, stored.config, spoiled))
    for protocol in ("purity", "knn,linear"):
        result = ponder("eval", tmp_path / "nan.pth", "--data", scenes, "--protocols", protocol)
        refused(result, "features of nan are not finite")
    words = ("--protocol", "linear", "--data", scenes, "--out", tmp_path, *OWN)
    refused(ponder("finetune", "--from", tmp_path / "nan.pth", *words), "not finite")


# Image features


SMALL = "n_channels: 4, longest_side: 32, sample_images: 4"


def _learns_features(tmp_path: Path, scenes: Path, name: str, more: str = "") -> Any:
    """Pre-training of one step with image features as a target, by a preset in a file."""
    values = pretrain_config(steps=1, evaluate_every=0).model_dump(mode="json")
    values["model"]["targets"] = {"image_features": {}}
    preset = {"description": "test", **{key: values[key] for key in ("data", "model", "training")}}
    (tmp_path / "features.yaml").write_text(yaml.safe_dump(preset))
    words = (
        "--data",
        scenes,
        "--out",
        tmp_path,
        "--name",
        name,
        "--set",
        f"data.image_features={{{SMALL}{more}}}",
    )
    return ponder("pretrain", "--preset", tmp_path / "features.yaml", *words)


@pytest.mark.parametrize(
    ("model", "fix"),
    [
        ("/nowhere/dinov2", "a folder of a model"),
        ("models/dinov2", "hf:models/dinov2"),
        ("efficentnet_lite0", "efficientnet_lite0"),
    ],
)
def test_a_missing_image_network(tmp_path: Path, scenes: Path, model: str, fix: str) -> None:
    assert fix in refused(_learns_features(tmp_path, scenes, "run", f", model: {model}"), model)
    assert not (scenes / "image_features").exists()


def test_spoiled_image_features(tmp_path: Path, scenes: Path) -> None:
    """What is damaged is computed again; the files of another image are refused when they are read."""
    own = shutil.copytree(scenes, tmp_path / "rooms")
    assert _learns_features(tmp_path, own, "first").exit_code == 0
    (folder,) = (own / "image_features").iterdir()
    good = contents(folder)
    files = sorted(folder.glob("train/*/*.safetensors"))
    with safe_open(str(files[0]), framework="pt") as file:
        spoiled, notes = file.get_tensor("features"), file.metadata()
    spoiled[:, 0, 0] = torch.nan
    save_file({"features": spoiled}, files[0], notes)
    files[1].write_bytes(files[1].read_bytes()[:-7])
    files[2].unlink()
    assert "3 of " in _learns_features(tmp_path, own, "again").stderr
    assert contents(folder) == good
    for path in files[1:]:
        path.write_bytes(files[0].read_bytes())
    refused(_learns_features(tmp_path, own, "other"), "2 scenes cannot be used", "are of another image")
    (folder / "pca.safetensors").write_bytes(b"cut")
    files[2].unlink()
    text = refused(_learns_features(tmp_path, own, "third"), "pca.safetensors is damaged")
    assert f"delete {folder}" in text


# Resources


def _ponder_on_a_full_disk(_: int, words: tuple[object, ...]) -> tuple[int, str]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    torch.set_num_threads(1)
    result = ponder(*words)
    return result.exit_code, result.stderr


@dataclass(frozen=True)
class _Ended:
    """What another process left."""

    exit_code: int
    stderr: str


def test_a_full_disk_while_a_run_is_saved(tmp_path: Path, scenes: Path, pretrained: Path) -> None:
    """The run continues another one, whose checkpoint has to survive."""
    last = pretrained / "checkpoints/last.pth"
    before = last.read_bytes()
    preset = tmp_path / "tiny.yaml"
    config = load_checkpoint(last).config
    config["training"]["steps"] = 2
    preset.write_text(json.dumps(config))
    run = ("--out", pretrained.parent, "--name", pretrained.name, "--resume")
    words = ("pretrain", "--preset", preset, "--data", scenes, *run)
    (answer,) = run_ranks(_ponder_on_a_full_disk, 1, words)
    refused(_Ended(*answer), "cannot write", last)
    assert last.read_bytes() == before and load_checkpoint(last).step == 1


def test_rendering_falls_back_to_smaller_chunks(
    tmp_path: Path, scenes: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ponderv2.renderer.renderer import Renderer

    real, sizes = Renderer._render_chunk, []

    def small_memory(self: Renderer, field: Any, rays: Any) -> Any:
        sizes.append(len(rays))
        if len(rays) > 100:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate too much")
        return real(self, field, rays)

    words = ("render", pretrained, "--scene", "room0", "--set", "width=16", "--split", "val")
    assert ponder(*words, "--out", tmp_path / "plenty").exit_code == 0
    monkeypatch.setattr(Renderer, "_render_chunk", small_memory)
    assert ponder(*words, "--out", tmp_path / "little").exit_code == 0
    assert max(sizes) > 100 >= min(sizes)
    assert contents(tmp_path / "little/color") == contents(tmp_path / "plenty/color")


def test_no_memory_at_all_is_said(
    tmp_path: Path, scenes: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ponderv2.renderer.renderer import Renderer

    def no_memory(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Renderer, "_render_chunk", no_memory)
    refused(ponder("render", pretrained, "--scene", "room0", "--out", tmp_path / "frames"), "out of memory")


def test_a_scene_without_valid_pixels(tmp_path: Path, pretrained: Path) -> None:
    from PIL import Image

    scenes = rooms(tmp_path / "rooms")
    for path in (scenes / "train").glob("*/frames/depth/*.png"):
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    before = contents(scenes)
    preset = tmp_path / "tiny.yaml"
    preset.write_text(json.dumps(pretrain_config(steps=1).model_dump(mode="json")))
    result = ponder("pretrain", "--preset", preset, "--data", scenes, "--out", tmp_path / "runs")
    refused(result, "room")
    assert contents(scenes) == before
