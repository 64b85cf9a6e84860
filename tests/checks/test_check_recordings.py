"""Files with a mistake, prepared: the check names it, though the recording was turned or gave no points."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.errors import SceneError
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.checks import spoiled


def write(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """frame-N.{color,depth,pose} of the chequered room, its world with y up."""
    upright = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    given = spoiled.room(10)
    folder.mkdir()
    for name, depth, color, pose in zip(given.ids, given.depth, given.color, given.poses, strict=True):
        Image.fromarray(color).save(folder / f"frame-{name}.color.png")
        Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(folder / f"frame-{name}.depth.png")
        np.savetxt(folder / f"frame-{name}.pose.txt", change(upright @ pose))
    np.savetxt(folder / "camera-intrinsics.txt", given.intrinsics)
    return folder


def prepared(folder: Path, out: Path) -> prepare.PrepareResult:
    return prepare.run(PrepareConfig(source=RgbdConfig(path=folder), out=out, workers=1))


def test_inverse_poses_are_named_after_the_turn(tmp_path: Path):
    sound = prepared(write(tmp_path / "sound", lambda pose: pose), tmp_path / "out").scenes[0]
    assert sound.check is not None and not sound.check.suspect
    record = json.loads((tmp_path / "out" / "train" / "sound" / "prepared.json").read_bytes())
    turn = np.array(record["recording_to_scene"])
    np.testing.assert_allclose(turn[:3, :3] @ [0, -1, 0], [0, 0, -1], atol=0.02)  # y of the files is up
    found = prepared(write(tmp_path / "inverse", np.linalg.inv), tmp_path / "wrong").scenes[0].check
    assert found is not None and found.suspect and "invert them" in found.likely_cause


def test_frames_without_common_points_name_the_unit_of_the_translations(tmp_path: Path):
    folder = write(tmp_path / "far", spoiled.scaled_translation(1000))
    with pytest.raises(SceneError, match=r"no points.*they are in millimetres"):
        prepared(folder, tmp_path / "out")
