"""SIGKILL at any moment costs at most the steps since the last save, and changes nothing in the end."""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.faults.kills import evaluation_killed, saves_killed, training_killed


def test_a_killed_pre_training_ends_as_one_that_nobody_killed(tmp_path: Path) -> None:
    assert training_killed(tmp_path, "pretrain", 2, 1).lost == 0


def test_a_killed_fine_tuning_ends_as_one_that_nobody_killed(tmp_path: Path) -> None:
    assert training_killed(tmp_path, "finetune", 2, 1).lost == 0


def test_a_killed_evaluation_gives_the_numbers_of_one_that_nobody_killed(tmp_path: Path) -> None:
    assert evaluation_killed(tmp_path, 1).lost == 0


def test_a_save_killed_between_its_calls_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    outcome = saves_killed(tmp_path)
    assert outcome.lost == 0 and outcome.injected >= 20
