"""Processes that die, hang, meet or change in number."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.campaigns.faults.processes import (
    clock_jumps,
    deterministic,
    order,
    rank_ends,
    restarted,
    two_runs,
    worker_killed,
)


@pytest.mark.parametrize(
    ("workers", "processes"), [((0, 2, 4), (1, 1, 1)), ((0, 0, 0), (1, 2, 1))], ids=["workers", "processes"]
)
def test_each_scene_is_seen_once_a_pass_whatever_prepares_or_trains_it(
    tmp_path: Path, workers: tuple[int, ...], processes: tuple[int, ...]
) -> None:
    assert order(tmp_path, workers, processes).lost == 0


def test_a_killed_data_worker_is_named_and_the_run_resumes_exactly(tmp_path: Path) -> None:
    assert worker_killed(tmp_path, 1).lost == 0


@pytest.mark.parametrize(
    ("number", "victim"), [(signal.SIGKILL, 1), (signal.SIGKILL, 0), (signal.SIGSTOP, 1)]
)
def test_a_rank_that_ends_or_hangs_is_named_by_the_other_which_ends_too(
    tmp_path: Path, number: int, victim: int
) -> None:
    assert rank_ends(tmp_path, number, victim).lost == 0


def test_torchrun_starts_a_run_again_whose_rank_was_killed(tmp_path: Path) -> None:
    assert restarted(tmp_path, 1).lost == 0


def test_a_second_run_in_a_folder_is_refused_and_a_dead_one_replaced(tmp_path: Path) -> None:
    assert two_runs(tmp_path).lost == 0


def test_deterministic_runs_are_bit_equal_with_any_number_of_workers(tmp_path: Path) -> None:
    assert deterministic(tmp_path, "finetune", (0, 2)).lost == 0


def test_times_of_files_and_the_zone_have_no_say(tmp_path: Path) -> None:
    assert clock_jumps(tmp_path).lost == 0
