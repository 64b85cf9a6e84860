"""Full disks, missing permissions, damaged checkpoints, and folders that would grow without end."""

from __future__ import annotations

from pathlib import Path

import pytest

from ponderv2.tasks.images import keep_newest
from ponderv2.training.run_logger import BoundedFile
from tests.campaigns.faults import disks
from tests.campaigns.faults.children import ponder
from tests.campaigns.faults.presets import preset, store, words


def test_a_disk_that_fills_during_a_run_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    assert disks.full_while_training(tmp_path).lost == 0


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    assert disks.checkpoint_too_large(tmp_path).lost == 0


@pytest.mark.parametrize("command", ["render", "eval"])
def test_outputs_that_do_not_fit_leave_the_old_ones(tmp_path: Path, command: str) -> None:
    assert disks.full_for(tmp_path, command).lost == 0


def test_a_folder_that_may_not_be_written_is_said_before_and_during_a_run(tmp_path: Path) -> None:
    assert [outcome.lost for outcome in disks.not_allowed(tmp_path)] == [0, 0]


@pytest.mark.parametrize("flip", [False, True])
def test_damage_to_the_last_checkpoint_is_noticed_and_the_one_before_taken(
    tmp_path: Path, flip: bool
) -> None:
    assert disks.damaged(tmp_path, 60, flip).lost == 0


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one_and_says_so(tmp_path: Path) -> None:
    assert disks.resumed_from_previous(tmp_path).lost == 0
    assert (tmp_path / "run" / "checkpoints" / "last.pth.damaged").exists()


def test_checkpoints_and_pictures_are_bounded(tmp_path: Path) -> None:
    settings = {"save_every": 1, "evaluate_every": 1, "keep_every": 1, "keep_newest": 2, "keep_steps": [1]}
    file = preset(tmp_path / "tiny.yaml", "pretrain", steps=4, **settings)
    child = ponder(tmp_path / "log", *words("pretrain", file, store(tmp_path / "rooms", 2), tmp_path, "run"))
    assert child.wait() == 0, child.said
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")}
    assert kept == {"step-1.pth", "step-3.pth", "step-4.pth"}
    pictures = {path.name[:11] for path in (tmp_path / "run" / "previews").iterdir()}
    assert pictures == {"step-000003", "step-000004"}


def test_pictures_of_other_names_are_left_alone(tmp_path: Path) -> None:
    for name in ("step-1-a.png", "step-2-a.png", "step-2-b.png", "mine.png", "step-x-a.png"):
        (tmp_path / name).touch()
    keep_newest(tmp_path, 1)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("step-2-a.png", "step-2-b.png", "mine.png", "step-x-a.png")
    }


def test_the_newest_lines_stay_when_a_log_is_full(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    log = BoundedFile(path, megabytes=2e-3)
    for number in range(1000):
        log.line(f"{number:09}")
    log.close()
    files = [tmp_path / "log.txt.older", path]
    assert sum(file.stat().st_size for file in files) <= 2100
    numbers = [int(line) for file in files for line in file.read_text().splitlines()]
    assert numbers == list(range(numbers[0], 1000)) and len(numbers) >= 100
