"""Numbers that are not finite."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.campaigns.faults.numbers import PLACES, bad_always, bad_once


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_a_bad_step_changes_nothing_and_its_scenes_are_kept(
    tmp_path: Path, place: str, world_size: int
) -> None:
    assert bad_once(tmp_path, place, world_size).lost == 0
    (kept,) = (tmp_path / "bad_batches").iterdir()
    tensors = load_file(kept)
    assert {"0.coord", "0.feature", "0.offset"} <= set(tensors)
    assert bool(tensors["0.feature"].isnan().any()) == (place == "input")


@pytest.mark.parametrize(("place", "world_size"), [("input", 2), ("gradient", 1)])
def test_bad_steps_in_a_row_end_the_run_and_name_the_scenes_in_all_processes(
    tmp_path: Path, place: str, world_size: int
) -> None:
    assert bad_always(tmp_path, place, world_size).lost == 0
