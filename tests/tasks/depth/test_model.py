"""The model of depth: closed forms, the same depth by pixels and by images, what is trained."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ponderv2.encoder.config import SparseUNetConfig
from ponderv2.encoder.image_backbone.config import ImageBackboneConfig
from ponderv2.lift.config import DepthIntervalsConfig
from ponderv2.models.encoder_model import calibrate_normalisation
from ponderv2.scenes.batch import Batch, ImageBatch
from ponderv2.tasks.depth.config import DepthLossConfig, DepthModelConfig
from ponderv2.tasks.depth.model import (
    DepthModel,
    depth_losses,
    expected_depth,
    features_at,
    measured_pixels,
    some_of_each_view,
)

INTERVALS = DepthIntervalsConfig(n_bins=6, nearest=1.0, width=0.5)
ENCODER = ImageBackboneConfig(network="test_convnext", used_stages=(1, 2, 3), n_maps=3, channels=8)
OTHER = ImageBackboneConfig(network="test_efficientnet", used_stages=(2, 3), n_maps=2, channels=8)


def batch_of(rng: torch.Generator, size: tuple[int, int] = (64, 80)) -> Batch:
    """Two views of one scene; every third pixel is measured."""
    depth = 1.0 + 3.0 * torch.rand(2, *size, generator=rng)
    depth[:, ::3] = 0.0
    images = ImageBatch(
        image=torch.rand(2, 3, *size, generator=rng),
        intrinsics=torch.eye(3).expand(2, 3, 3),
        world_to_camera=torch.eye(4).expand(2, 4, 4),
        view_scene=torch.zeros(2, dtype=torch.long),
        depth=depth,
    )
    return Batch(
        coord=torch.zeros(1, 3),
        grid_coord=torch.zeros(1, 3, dtype=torch.long),
        feature=torch.zeros(1, 1),
        offset=torch.tensor([1]),
        segment=torch.full((1,), -1),
        units_per_metre=torch.ones(1),
        condition="toy",
        names=("a",),
        images=images,
    )


def test_expected_depth_of_known_distributions() -> None:
    certain = torch.full((6,), -100.0)
    certain[2] = 0.0
    between = torch.full((6,), -100.0)
    between[2], between[3] = 0.0, torch.tensor(3.0).log()
    logits = torch.stack([certain, between, torch.zeros(6)])
    middles = [1.25, 1.75, 2.25, 2.75, 3.25, 3.75]
    expected = torch.tensor([2.25, 0.25 * 2.25 + 0.75 * 2.75, sum(middles) / 6])
    torch.testing.assert_close(expected_depth(logits, INTERVALS), expected)


def test_losses_are_smallest_where_the_expected_depth_is_the_measured_one() -> None:
    """A quarter of the way between two middles: probabilities 3/4 and 1/4."""
    depth = torch.tensor([2.25 + 0.125])
    logits = torch.full((1, 6), -40.0)
    logits[0, 2], logits[0, 3] = torch.tensor(0.75).log(), torch.tensor(0.25).log()
    losses = depth_losses(logits, depth, INTERVALS, DepthLossConfig(cross_entropy=2.0, log_depth=3.0))
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    assert float(losses.cross_entropy) == pytest.approx(2.0 * float(entropy), abs=1e-5)
    assert float(losses.log_depth) == pytest.approx(0.0, abs=1e-5)
    far = depth_losses(torch.zeros(1, 6), depth, INTERVALS, DepthLossConfig())
    assert float(far.cross_entropy) == pytest.approx(float(torch.tensor(6.0).log()))
    assert float(far.log_depth) == pytest.approx(abs(float((torch.tensor(2.5) / depth).log())))
    nothing = depth_losses(torch.zeros(0, 6), torch.zeros(0), INTERVALS, DepthLossConfig())
    assert float(nothing.total()) == 0.0


def test_only_measured_pixels_within_the_intervals_count(rng: torch.Generator) -> None:
    images = batch_of(rng).images
    assert images is not None and images.depth is not None
    found = measured_pixels(images, DepthIntervalsConfig(n_bins=2, nearest=2.0, width=0.5))
    inside = (images.depth >= 2.0) & (images.depth < 3.0)
    assert len(found.depth) == int(inside.sum())
    assert torch.equal(found.depth, images.depth[found.view, found.row, found.column])


def test_features_at_pixels_are_the_maps_resized_to_the_image(rng: torch.Generator) -> None:
    batch = batch_of(rng)
    assert batch.images is not None
    model = DepthModel(DepthModelConfig(encoder=ENCODER, reads="maps", intervals=INTERVALS)).eval()
    features, measured = model.maps(batch), model.measured(batch.images)
    assert features.padded_size == (64, 96)  # filled up at the right
    rows = features_at(features, measured, batch.images)
    resized = torch.cat(
        [F.interpolate(one.feature, (64, 96), mode="bilinear", align_corners=False) for one in features.maps],
        dim=1,
    )
    torch.testing.assert_close(
        rows, resized.movedim(1, -1)[measured.view, measured.row, measured.column], atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("reads", ["network", "maps"])
def test_images_and_pixels_have_the_same_depth(reads, rng: torch.Generator) -> None:
    batch = batch_of(rng)
    assert batch.images is not None
    model = DepthModel(DepthModelConfig(encoder=ENCODER, reads=reads, intervals=INTERVALS))
    model(batch, rng)  # statistics of the norm of the head
    model.eval()
    measured = model.measured(batch.images)
    with torch.no_grad():
        rows = model.head(features_at(model.maps(batch), measured, batch.images))
        dense = model.depth(batch)
    assert dense.shape == (2, 64, 80)
    torch.testing.assert_close(
        dense[measured.view, measured.row, measured.column], expected_depth(rows, INTERVALS)
    )


def test_a_step_compares_some_pixels_of_each_image_whatever_its_neighbours_are(rng: torch.Generator) -> None:
    one, two = batch_of(rng), batch_of(rng)
    both = Batch.collate([one, two])
    assert both.images is not None and one.images is not None
    every = some_of_each_view(measured_pixels(both.images, INTERVALS), both, 50, _generator())
    assert torch.equal(torch.bincount(every.view), torch.full((4,), 50))
    alone = some_of_each_view(measured_pixels(one.images, INTERVALS), one, 50, _generator())
    assert torch.equal(alone.depth, every.depth[:100])


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_what_no_stage_is_made_of_is_not_trained(rng: torch.Generator) -> None:
    batch = batch_of(rng)
    model = DepthModel(DepthModelConfig(encoder=ENCODER, intervals=INTERVALS))
    model(batch, rng).losses.total().backward()
    names = [name for name, one in model.named_parameters() if one.requires_grad]
    assert not any("pyramid" in name or "norms" in name for name in names)
    assert all(one.grad is not None for one in model.parameters() if one.requires_grad)
    assert any(name.startswith("backbone.network.stages.0") for name in names)
    frozen = DepthModel(DepthModelConfig(encoder=ENCODER, intervals=INTERVALS, freeze_encoder=True))
    assert [name for name, one in frozen.named_parameters() if one.requires_grad] == [
        "head.linear.weight",
        "head.linear.bias",
    ]
    of_maps = DepthModel(DepthModelConfig(encoder=ENCODER, reads="maps", intervals=INTERVALS))
    of_maps(batch, rng).losses.total().backward()
    assert all(one.grad is not None for one in of_maps.parameters() if one.requires_grad)


def test_norms_of_a_random_network_take_the_statistics_of_images(rng: torch.Generator) -> None:
    """Also where the settings keep them in evaluation: mean 0 and variance 1 are none of these images."""
    batch = batch_of(rng)
    encoder = OTHER.model_copy(update={"norm_eval": True})
    model = DepthModel(DepthModelConfig(encoder=encoder, intervals=INTERVALS, freeze_encoder=True))
    calibrate_normalisation(model, [batch])
    norm = model.backbone.network.bn1
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.maps(batch)
    torch.testing.assert_close(norm.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)
    assert not norm.training


def test_an_encoder_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="no 2D network"):
        DepthModel(DepthModelConfig(encoder=SparseUNetConfig()))
