"""Clouds without colours or normals get what training put in their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ponderv2.data.augment_config import ColorDropConfig
from ponderv2.data.augmentation import augment
from ponderv2.data.missing_inputs import HiddenInputs, with_all_inputs
from ponderv2.scenes.scene import PointCloud, Scene

INPUTS = ("color", "normal", "offset")


@pytest.fixture
def floor(rng: torch.Generator) -> PointCloud:
    """A flat floor; the middle of the cloud lies above it, where one point hangs."""
    coord = torch.rand(400, 3, generator=rng) * torch.tensor([4.0, 4.0, 0.0])
    return PointCloud(torch.cat([coord, torch.tensor([[2.0, 2.0, 3.0]])]))


def test_missing_colours_are_those_of_a_scene_whose_colours_training_dropped(floor):
    drop = ColorDropConfig(probability=1.0, value=90.0)
    hidden = HiddenInputs.of_augmentation([drop.model_dump()])
    cloud, notes = with_all_inputs(floor, INPUTS, hidden)
    color = torch.rand(len(floor), 3) * 255
    trained = augment(Scene("a", PointCloud(floor.coord, color)), [drop], torch.Generator()).cloud
    assert torch.equal(cloud.color, trained.color) and notes == ()


def test_readers_mark_missing_colours_by_the_middle_of_the_range(floor):
    grey = PointCloud(floor.coord, torch.full((len(floor), 3), 127.5), torch.zeros(len(floor), 3))
    cloud, _ = with_all_inputs(grey, INPUTS, HiddenInputs(color=90.0))
    assert (cloud.color == 90.0).all() and (grey.color == 127.5).all()


def test_missing_normals_are_estimated_or_zero(floor):
    estimated, _ = with_all_inputs(floor, INPUTS)
    assert np.allclose(estimated.normal[:400], (0.0, 0.0, 1.0), atol=0.2)
    hidden, _ = with_all_inputs(floor, INPUTS, hide=("normal",))
    assert (hidden.normal == 0).all()


def test_what_is_there_stays_as_it_is_unless_it_is_hidden(floor):
    n = len(floor)
    whole = PointCloud(floor.coord, torch.rand(n, 3) * 255, torch.nn.functional.normalize(torch.rand(n, 3)))
    cloud, notes = with_all_inputs(whole, INPUTS)
    assert torch.equal(cloud.color, whole.color) and torch.equal(cloud.normal, whole.normal) and notes == ()
    cloud, _ = with_all_inputs(whole, INPUTS, hide=("color", "normal"))
    assert (cloud.color == 127.5).all() and (cloud.normal == 0).all()


def test_an_encoder_that_never_missed_them_is_reported(floor):
    never = HiddenInputs.of_augmentation([{"kind": "color_drop", "probability": 0.0}])
    _, notes = with_all_inputs(floor, INPUTS, never, hide=("normal",))
    assert notes == ("the encoder was trained with every color and normal known: expect worse features",)
    trained = HiddenInputs.of_augmentation([{"kind": "color_drop"}, {"kind": "normal_drop"}])
    assert with_all_inputs(floor, INPUTS, trained, hide=("normal",))[1] == ()
    assert with_all_inputs(floor, INPUTS, HiddenInputs(), hide=("normal",))[1] == ()


def test_inputs_that_the_encoder_does_not_take_are_left_alone(floor):
    cloud, notes = with_all_inputs(floor, ("coord",), HiddenInputs(trained=frozenset()))
    assert cloud.color is None and cloud.normal is None and notes == ()
