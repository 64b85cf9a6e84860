"""`prepare` checks drives and draws them, prepared or where they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.io.images import read_color
from ponderv2.workflows.config import PrepareConfig
from ponderv2.workflows.prepare import check, run
from ponderv2.workflows.prepare_report import REPORT_FILE, check_result, read_report
from tests.datasets.drives.nuscenes_drives import write_drives
from tests.workflows.heard import Heard


@pytest.fixture
def config(tmp_path: Path) -> PrepareConfig:
    write_drives(tmp_path / "raw", n_samples=3)
    source = NuscenesConfig(path=tmp_path / "raw", sweeps=2)
    return PrepareConfig(source=source, out=tmp_path / "scenes", workers=1)


def test_drives_are_checked_once_they_are_prepared(config: PrepareConfig) -> None:
    heard = Heard()
    result = run(config, heard)
    assert [one.name for one in result.drives] == ["train/scene-0061", "val/scene-0103"]
    assert all(len(one.key_frames) == 3 and one.found is not None for one in result.drives)
    for one in result.drives:
        drawn = read_color(Path(one.picture))
        assert drawn.shape[2] == 3 and drawn.std() > 1.0
    assert {path.name for path in (config.out / "check_pictures").iterdir()} == {
        "train_scene-0061.jpg",
        "val_scene-0103.jpg",
    }
    entry = read_report(config.out)["train/" + result.scenes[0].name]["check"]
    assert check_result(entry) == result.scenes[0].check, "a stored result is read as it was"
    assert check_result({**entry, "lidar": {"of": "another version"}}) is None
    again = run(config, Heard())
    assert again.n_skipped == 6 and [one.found for one in again.drives] == [
        one.found for one in result.drives
    ]
    assert json.loads((config.out / REPORT_FILE).read_text())


def test_drives_that_are_not_prepared_are_checked_where_they_are(config: PrepareConfig) -> None:
    before = sorted(path for path in config.source.path.rglob("*"))  # type: ignore[union-attr]
    result = check(config, Heard())
    assert [one.status for one in result.scenes] == ["checked"] * 6
    assert len(result.drives) == 2 and all(Path(one.picture).is_file() for one in result.drives)
    assert sorted(config.source.path.rglob("*")) == before, "nothing is written beside raw data"  # type: ignore[union-attr]
    assert run(config, Heard()).n_prepared == 6, "the folder of pictures is no obstacle"


def test_without_pictures_none_are_drawn(config: PrepareConfig) -> None:
    quiet = config.model_copy(update={"check": config.check.model_copy(update={"pictures": 0})})
    result = run(quiet)
    assert all(not one.picture for one in result.drives) and not (config.out / "check_pictures").exists()
    assert np.isfinite([one.found.key_frames for one in result.drives if one.found is not None]).all()
