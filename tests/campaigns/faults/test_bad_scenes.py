"""Among broken scenes the sound one is prepared, and each broken one is named with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ponderv2.checks.config import CheckConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.rgbd.config import FusionConfig, RgbdConfig
from ponderv2.errors import SceneError
from ponderv2.workflows import prepare, prepare_report
from ponderv2.workflows.config import PrepareConfig
from tests.campaigns.faults import bad_recordings
from tests.scenes import box_room


def prepared(root: Path, out: Path, layout: str, strict: bool = False) -> prepare.PrepareResult:
    """All recordings of a folder."""
    camera = root.parent / "camera.txt"
    np.savetxt(camera, box_room.K)
    given = {"intrinsics": camera} if layout == "tum" else {}
    fusion = FusionConfig(voxel_size=0.1, truncation=0.4)
    source = RgbdConfig(path=root, fusion=fusion, up_axis="z", **given)
    settings = PrepareConfig(source=source, out=out, workers=1, check=CheckConfig(n_pixels=50))
    return prepare.run(settings, strict=strict)


def test_twenty_kinds_of_damage_are_named_and_the_sound_recording_is_prepared(tmp_path: Path):
    """The other layouts take their turn in tests/campaigns/soak_inputs.py."""
    layout = "scannet"
    broken = bad_recordings.write_all(tmp_path / "all", layout)
    assert len(broken) >= 20
    result = prepared(tmp_path / "all", tmp_path / "out", layout)
    unnamed = check_outcome(result, broken)
    assert not unnamed
    report = json.loads((tmp_path / "out" / prepare_report.REPORT_FILE).read_text())["scenes"]
    assert report["train/sound"]["status"] == "done"
    assert len(open_folder(tmp_path / "out").read("sound").frames) == 2
    with pytest.raises(SceneError, match="train/"):
        prepared(tmp_path / "all", tmp_path / "out", layout, strict=True)


def check_outcome(result: prepare.PrepareResult, broken: list[str]) -> list[str]:
    """Broken recordings without a message."""
    said = {one.name: one for one in result.scenes}
    assert said["sound"].status == "done"
    left_out = " ".join(result.warnings)
    unnamed = []
    for name in broken:
        found = said.get(name)
        named = name in left_out if found is None else found.status in ("failed", "repaired") and found.why
        if not named:
            unnamed.append(name)
    return unnamed
