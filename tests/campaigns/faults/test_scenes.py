"""Scenes that are damaged while a run is on."""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.faults.scenes import damaged_in_an_epoch, read_only, same_choice, too_many


def test_a_scene_that_breaks_in_an_epoch_is_listed_and_the_run_goes_on(tmp_path: Path) -> None:
    assert damaged_in_an_epoch(tmp_path, "cut").lost == 0


def test_what_stands_in_is_the_same_with_workers_after_a_kill_and_in_two_processes(tmp_path: Path) -> None:
    assert same_choice(tmp_path, 1).lost == 0


def test_too_many_damaged_scenes_end_the_run_with_their_names(tmp_path: Path) -> None:
    assert too_many(tmp_path).lost == 0


def test_scenes_may_be_read_only(tmp_path: Path) -> None:
    assert read_only(tmp_path).lost == 0
