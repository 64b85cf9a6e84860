"""The experiment on streets: its splits and its jobs, without running them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.gain_figures import Figures
from experiments.streets_gain import BUDGETS, CHOICE, Bench, divide, jobs
from ponder_cli.presets import load_preset
from ponderv2.data.scene_folder import open_folder
from ponderv2.workflows.config import FinetuneConfig
from tests.datasets.drives.nuscenes_drives import write_drives

DRIVES = ("scene-0001", "scene-0002", "scene-0003", "scene-0004")


def test_streets_for_choices_are_taken_from_those_for_training(tmp_path: Path) -> None:
    write_drives(tmp_path / "streets", DRIVES, version="v1.0-trainval", n_samples=3)
    divide(tmp_path / "streets", tmp_path / "divided")
    before, after = open_folder(tmp_path / "streets"), open_folder(tmp_path / "divided")
    assert set(after.names("train")) | set(after.names(CHOICE)) == set(before.names("train"))
    assert not set(after.names("train")) & set(after.names(CHOICE)) and after.names(CHOICE)
    assert after.names("val") == before.names("val") and after.names("val")
    one = after.names(CHOICE)[0]
    coord = after.read(one, CHOICE).cloud.coord
    assert np.array_equal(coord.numpy(), before.read(one, "train").cloud.coord.numpy())


def test_every_figure_has_one_job_and_every_setting_exists(tmp_path: Path) -> None:
    found = jobs(Bench(tmp_path, tmp_path / "streets", Figures(tmp_path / "results.json")), 3)
    gives = [key for job in found for key in job.gives]
    assert len(gives) == len(set(gives)) and len({job.name for job in found}) == len(found)
    assert sum(key[0] == "full" for key in gives) == 3 * len(BUDGETS) * 2
    assert sum(key[0] == "full at 3e-3" for key in gives) == 3 * len(BUDGETS) * 2
    for changes in BUDGETS.values():
        load_preset("finetune", "streets_lidarseg", changes, FinetuneConfig)
