"""Among broken scenes of a dataset the sound one is prepared, and each broken one is named with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.faults.bad_datasets import DATASETS, prepared, unnamed, write_all
from tests.workflows.heard import Heard


@pytest.mark.parametrize("name", DATASETS)
def test_every_damaged_part_is_named_and_the_sound_scene_prepared(name: str, tmp_path: Path) -> None:
    dataset, heard = DATASETS[name], Heard()
    done = write_all(tmp_path / "raw", dataset)
    assert len(done) >= 11
    result = prepared(tmp_path / "raw", tmp_path / "out", dataset, heard)
    assert not unnamed(result, done, dataset, heard)
    names = [path.name for path in (tmp_path / "out").rglob("*")]
    assert not [name for name in names if name.startswith(".") or ".partial" in name]
