"""Adding a data set, an encoder, a lift and a task as docs/architecture.md says, to a copy of the program.

A toy of each kind stands in `files/`, where it belongs in the program. Each touches the places of the table
and no others; then the commands run on them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Addition:
    """What is added for one row of the table."""

    row: str
    """First column of the table."""
    new: tuple[str, str]
    """A folder of the package, and a preset."""
    listed: str
    """The file that lists the members of the kind."""
    edits: tuple[tuple[str, str], ...]
    """Text of that file -> what stands there afterwards."""


def imported(line: str) -> tuple[str, str]:
    """The edit that adds an import."""
    return "\nif TYPE_CHECKING", f"\n{line}\n\nif TYPE_CHECKING"


ADDITIONS = (
    Addition(
        "data set",
        ("ponderv2/datasets/toy_drives", "presets/prepare/toy_drives.yaml"),
        "ponderv2/datasets/kinds.py",
        (
            imported("from ponderv2.datasets.toy_drives.config import ToyDrivesConfig"),
            ("    SyntheticConfig\n", "    ToyDrivesConfig\n    | SyntheticConfig\n"),
            (
                "        case SyntheticConfig():",
                "        case ToyDrivesConfig():\n"
                "            from ponderv2.datasets.toy_drives import reader as toy_drives\n\n"
                "            return toy_drives.find(settings)\n"
                "        case SyntheticConfig():",
            ),
        ),
    ),
    Addition(
        "encoder",
        ("ponderv2/encoder/one_convolution", "presets/pretrain/one_convolution.yaml"),
        "ponderv2/encoder/kinds.py",
        (
            imported("from ponderv2.encoder.one_convolution.config import OneConvolutionConfig"),
            ("AnyEncoder = SparseUNetConfig |", "AnyEncoder = OneConvolutionConfig | SparseUNetConfig |"),
            (
                "        case SparseUNetConfig() |",
                "        case OneConvolutionConfig():\n"
                "            from ponderv2.encoder.one_convolution.encoder import OneConvolution\n\n"
                "            return OneConvolution(config)\n"
                "        case SparseUNetConfig() |",
            ),
        ),
    ),
    Addition(
        "lift",
        ("ponderv2/lift/mean_of_views", "presets/pretrain/one_convolution.yaml"),
        "ponderv2/lift/kinds.py",
        (
            imported("from ponderv2.lift.mean_of_views.config import MeanOfViewsConfig"),
            (
                "AnyLift = DensifyConfig |",
                "AnyLift = DensifyConfig | MeanOfViewsConfig |",
            ),
            (
                "        case DensifyConfig():",
                "        case MeanOfViewsConfig():\n"
                "            from ponderv2.lift.mean_of_views.lift import MeanOfViews\n\n"
                "            return MeanOfViews(config)\n"
                "        case DensifyConfig():",
            ),
        ),
    ),
    Addition(
        "task",
        ("ponderv2/tasks/inside_boxes", "presets/finetune/toy_boxes.yaml"),
        "ponderv2/tasks/kinds.py",
        (
            imported("from ponderv2.tasks.inside_boxes.config import InsideBoxesConfig"),
            ("    | InstancesModelConfig\n", "    | InstancesModelConfig\n    | InsideBoxesConfig\n"),
            (
                "        case InstancesModelConfig():",
                "        case InsideBoxesConfig():\n"
                "            from ponderv2.tasks.inside_boxes.task import InsideBoxesTask\n\n"
                "            return InsideBoxesTask(settings)\n"
                "        case InstancesModelConfig():",
            ),
        ),
    ),
)


def places_in_table(row: str) -> set[str]:
    """Paths in the row of the table that says how to add something; <name> stands for the new member."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
    return set(re.findall(r"`([^`]+/[^`]+)`", line))


@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda one: one.row)
def test_the_places_are_those_of_the_architecture_page(addition: Addition) -> None:
    folder, preset = addition.new
    name, preset_name = Path(folder).name, Path(preset).name
    wanted = {
        folder.replace(name, "<name>") + "/",
        addition.listed,
        preset.replace(preset_name, "<name>.yaml"),
    }
    assert places_in_table(addition.row) == wanted
    assert len(wanted) == 3


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program with all additions."""
    copy = tmp_path_factory.mktemp("program")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("ponderv2", "ponder_cli", "presets"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    before = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    shutil.copytree(FILES, copy, dirs_exist_ok=True, ignore=ignore)
    for addition in ADDITIONS:
        path = copy / addition.listed
        text = path.read_text(encoding="utf-8")
        for old, new in addition.edits:
            assert text.count(old) == 1, f"{old!r} in {addition.listed}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    after = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    changed = {str(path) for path in before if before[path] != after[path]}
    assert changed == {addition.listed for addition in ADDITIONS}
    new = [str(path) for path in after if path not in before]
    assert all(path.startswith(tuple(one for a in ADDITIONS for one in a.new)) for path in new)
    return copy


def ponder(program: Path, folder: Path, *arguments: str) -> dict:
    """What a command of the extended program wrote with --json."""
    found = folder / "found.json"
    done = called(program, folder, *arguments, "--json", str(found))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(found.read_text())


def called(program: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the extended program."""
    environment = {**os.environ, "PYTHONPATH": str(program), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "ponder_cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def write_drives(root: Path) -> None:
    """Three drives past cars on a plane; the LiDAR is 1.8 m above the ground."""
    rng = np.random.default_rng(0)
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        folder = root / split / name
        folder.mkdir(parents=True)
        boxes = [
            {"center": [x, y, 0.8], "size": [4.0, 1.8, 1.6], "yaw": yaw}
            for x, y, yaw in zip(rng.uniform(4, 16, 4), (-6, -3, 3, 6), rng.uniform(-3, 3, 4), strict=True)
        ]
        poses = []
        for number, start in enumerate((0.0, 1.5)):
            pose = np.eye(4)
            pose[:3, 3] = (start, 0.0, 1.8)
            ground = np.stack([rng.uniform(-4, 22, 1500), rng.uniform(-9, 9, 1500), np.zeros(1500)], axis=1)
            points, bright = [ground], [np.full(1500, 0.2)]
            for box in boxes:
                unit = rng.uniform(-0.5, 0.5, (300, 3))
                side = rng.integers(0, 2, 300)
                unit[np.arange(300), side] = rng.choice([-0.5, 0.5], 300)
                local = unit * 0.99 * np.array(box["size"])
                cosine, sine = np.cos(box["yaw"]), np.sin(box["yaw"])
                turned = local @ np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
                points.append(turned + box["center"])
                bright.append(np.full(300, 0.9))
            world = np.concatenate(points)
            values = np.concatenate([world - pose[:3, 3], np.concatenate(bright)[:, None]], axis=1)
            np.save(folder / f"{number:03d}.npy", values.astype(np.float32))
            poses.append({"sensor_to_world": pose.tolist(), "time": 0.1 * number})
        (folder / "poses.json").write_text(json.dumps(poses))
        (folder / "boxes.json").write_text(json.dumps(boxes))


@pytest.fixture(scope="module")
def folder(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run, with prepared drives."""
    folder = tmp_path_factory.mktemp("work")
    write_drives(folder / "raw")
    found = ponder(program, folder, "prepare", "toy_drives", "raw", "--workers", "1")
    assert found["n_prepared"] == 3 and found["n_failed"] == 0
    return folder


def test_drives_are_prepared_with_sweeps_boxes_and_intensity(folder: Path) -> None:
    from ponderv2.store.store import SceneStore

    scene = SceneStore.open(folder / "data/toy_drives").read("a", "train")
    assert scene.boxes is not None and len(scene.boxes) == 4
    assert [sweep.time for sweep in scene.sweeps] == [0.0, 0.1]
    in_world = scene.sweeps[1].read_in_world()
    raw = np.load(folder / "raw/train/a/001.npy")
    assert np.allclose(in_world.coord.numpy(), raw[:, :3] + (1.5, 0.0, 1.8), atol=1e-4)
    assert np.array_equal(in_world.fields["intensity"].numpy(), raw[:, 3])
    bright = scene.cloud.fields["intensity"] > 0.5
    inside = scene.boxes.contains(scene.cloud.coord).any(dim=0)
    assert (inside[bright].float().mean() > 0.99) and len(scene.frames) == 8


def test_the_data_set_is_a_subcommand_of_prepare(program: Path, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(program), "PYTHONSAFEPATH": "1", "COLUMNS": "120"}
    command = [sys.executable, "-m", "ponder_cli", "prepare", "toy_drives", "--help"]
    shown = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout
    assert "--sweeps" in shown and "Most sweeps of a drive" in shown
    assert "--rooms" not in shown


def test_the_task_is_pre_trained_fine_tuned_and_evaluated_on_the_drives(program: Path, folder: Path) -> None:
    small = (
        "model.encoder={kind: sparse_unet, in_channels: 3, base_channels: 8, channels: [8, 16, 16, 8], "
        "layers: [1, 1, 1, 1]}"
    )
    few = ("--set", "training.steps=2", "--set", "training.evaluate_every=0")
    data = ("--set", "data.features=[height, ones]", "--set", "data.fields=[intensity]")
    found = ponder(
        program,
        folder,
        *("pretrain", "--preset", "demo", "--data", "data/toy_drives", "--name", "pre"),
        *("--set", small, "--set", "data.voxel.size=0.5", "--set", "model.frame.cube_size=30", *data, *few),
    )
    assert found["metrics"]["depth_l1"] > 0
    tuned = ponder(
        program, folder, "finetune", "--from", "runs/pre", "--preset", "toy_boxes", "--name", "boxes"
    )
    # Cars are bright and high: one linear map of the input nearly solves it.
    assert tuned["metrics"]["iou"] > 0.5
    judged = ponder(program, folder, "eval", "runs/boxes")
    assert judged["kind"] == "inside_boxes"
    assert judged["metrics"]["iou"] == pytest.approx(tuned["best"]["iou"], abs=1e-6)
    refused = called(program, folder, "eval", "runs/boxes", "--protocols", "knn")
    assert refused.returncode == 2 and "it has no protocols" in refused.stderr


def test_the_image_encoder_is_pre_trained_on_rooms(program: Path, folder: Path) -> None:
    rooms = ("--rooms", "3", "--workers", "1", "--set", "source.frames=12")
    assert ponder(program, folder, "prepare", "synthetic", *rooms, "--out", "data/rooms")["n_failed"] == 0
    few = ("--set", "training.steps=2", "--set", "training.evaluate_every=0")
    found = ponder(program, folder, "pretrain", "--preset", "one_convolution", "--name", "images", *few)
    assert np.isfinite(list(found["losses"].values())).all()
    assert found["metrics"]["psnr"] > 0
