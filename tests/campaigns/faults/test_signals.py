"""Signals that ask a run to stop."""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.faults.signals import interrupted_twice, ranks_signalled, signalled


def test_each_signal_saves_and_leaves_with_its_own_status_and_the_run_resumes_exactly(tmp_path: Path) -> None:
    assert signalled(tmp_path, 3).lost == 0


def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(tmp_path: Path) -> None:
    assert ranks_signalled(tmp_path).lost == 0


def test_the_second_interrupt_does_not_wait_for_the_step(tmp_path: Path) -> None:
    assert interrupted_twice(tmp_path).lost == 0
