"""Memory that does not suffice for a training step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ponderv2.data.config import PretrainDataConfig
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.scenes.batch import Batch
from ponderv2.training.step import named_tensors
from tests.campaigns.faults.memory import limited, never_enough, split
from tests.scenes.closed_form_room import write_store


@pytest.mark.parametrize(("fails", "most_scenes"), [("forward", 1), ("backward", 2)])
def test_a_batch_that_does_not_fit_is_split_as_accumulate_would(
    tmp_path: Path, fails: str, most_scenes: int
) -> None:
    assert split(tmp_path, fails, most_scenes).lost == 0


def test_a_process_that_gets_no_more_memory_goes_on_with_half_the_batch(tmp_path: Path) -> None:
    assert limited(tmp_path).lost == 0


def test_single_scenes_that_do_not_fit_are_skipped_then_the_setting_is_named(tmp_path: Path) -> None:
    assert never_enough(tmp_path).lost == 0


def test_halves_of_a_batch_are_its_scenes_again(tmp_path: Path) -> None:
    data = PretrainDataset(
        write_store(tmp_path, n_scenes=3, n_points=300),
        "train",
        PretrainDataConfig.model_validate({"voxel": {"size": 0.3}, "views": {"n_views": 2, "n_pixels": 4}}),
    )
    scenes = [data.sample(index, 0) for index in range(3)]
    first, rest = Batch.collate(scenes).halves()
    second, third = rest.halves()
    for found, truth in zip((first, second, third), scenes, strict=True):
        assert found.names == truth.names
        pairs = zip(named_tensors(found), named_tensors(truth), strict=True)
        for (name, ours), (_, theirs) in pairs:
            same = ours - ours.amin() if name == "instance" else ours
            assert torch.equal(same, theirs - theirs.amin() if name == "instance" else theirs), name
