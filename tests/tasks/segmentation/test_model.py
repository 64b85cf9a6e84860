"""The segmentation model: wiring, freezing, learning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ponderv2.encoder.config import PromptedSparseUNetConfig, SparseUNetConfig
from ponderv2.heads.config import LinearHeadConfig
from ponderv2.models.encoder_model import calibrate_normalisation
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel

SMALL = {"base_channels": 8, "channels": (8, 12, 12, 8), "layers": (1, 1, 1, 1)}


def config(**changes) -> SegmentationModelConfig:
    return SegmentationModelConfig(
        encoder=SparseUNetConfig(**SMALL), head=LinearHeadConfig(n_classes=3), **changes
    )


@pytest.fixture
def batch(rng: torch.Generator) -> Batch:
    """Two scenes; the class is given by the first feature."""
    cells = torch.unique(torch.randint(0, 8, (150, 3), generator=rng), dim=0)
    cells = torch.cat([cells, cells])
    feature = torch.randn(len(cells), 6, generator=rng)
    segment = torch.bucketize(feature[:, 0].contiguous(), torch.tensor([-0.4, 0.4]))
    segment[::7] = -1
    return Batch(
        coord=cells * 0.1,
        grid_coord=cells,
        feature=feature,
        offset=torch.tensor([len(cells) // 2, len(cells)]),
        segment=segment,
        units_per_metre=torch.ones(2),
        condition="toy",
        names=("a", "b"),
    )


def test_every_parameter_gets_a_gradient(batch: Batch) -> None:
    model = SegmentationModel(config())
    step = model(batch)
    assert step.logits.shape == (len(batch.coord), 3)
    step.losses.total().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_few_steps_learn_a_class_given_by_a_feature(batch: Batch) -> None:
    model = SegmentationModel(config())
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = None
    for _ in range(10):
        losses = model(batch).losses
        first = first if first is not None else float(losses.total().detach())
        optimiser.zero_grad()
        losses.total().backward()
        optimiser.step()
    assert first is not None and float(model(batch).losses.total().detach()) < 0.8 * first


def test_frozen_encoder_is_not_touched_by_training(batch: Batch) -> None:
    model = SegmentationModel(config(freeze_encoder=True)).train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        model(batch).losses.total().backward()
        optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"head"}


def test_calibration_stores_the_statistics_of_the_batches(batch: Batch) -> None:
    """After calibration on one batch, evaluation gives what training gives on it."""
    model = SegmentationModel(config(freeze_encoder=True)).eval()
    raw = model.encode_points(batch)
    calibrate_normalisation(model, [batch])
    calibrated = model.encode_points(batch)
    model.backbone.train()
    trained = model.encode_points(batch)
    # Stored variances are unbiased, those of the batch are not: n / (n - 1) at a few hundred voxels.
    assert float((calibrated - trained).norm() / trained.norm()) < 0.1
    assert float((raw - trained).norm() / trained.norm()) > 0.2
    assert not any(m.momentum is None for m in model.backbone.modules() if hasattr(m, "momentum"))


def test_calibration_leaves_parts_whose_statistics_apply_alone(batch: Batch) -> None:
    """They normalise by these statistics, which do not change, while the others take theirs."""
    model = SegmentationModel(config(freeze_encoder=True)).eval()
    part = next(module for _, module in model.backbone.named_children() if _norms(module))
    kept = {id(norm) for norm in _norms(part)}
    before = {id(norm): norm.running_mean.clone() for norm in _norms(model.backbone)}
    calibrate_normalisation(model, [batch], leaving=[part])
    same = {id(norm) for norm in _norms(model.backbone) if torch.equal(norm.running_mean, before[id(norm)])}
    assert same == kept and 0 < len(kept) < len(before)
    stored = model.encode_points(batch)
    model.backbone.train()
    part.eval()
    assert float((model.encode_points(batch) - stored).norm() / stored.norm()) < 0.1


def _norms(module: nn.Module) -> list[Any]:
    return [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]


def test_calibration_leaves_normalisations_of_other_datasets_alone(batch: Batch) -> None:
    encoder = PromptedSparseUNetConfig(**SMALL, conditions=("toy", "other"), context_channels=16)
    model = SegmentationModel(SegmentationModelConfig(encoder=encoder, head=LinearHeadConfig(n_classes=3)))
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.fill_(3.0)
    calibrate_normalisation(model.eval(), [batch])
    means = {name: value for name, value in model.state_dict().items() if name.endswith("running_mean")}
    kept = {name for name, value in means.items() if bool((value == 3.0).all())}
    assert kept == {name for name in means if ".bns.1." in name} and len(means) == 2 * len(kept)


def test_prompted_encoder_uses_the_named_condition(batch: Batch) -> None:
    encoder = PromptedSparseUNetConfig(**SMALL, conditions=("toy", "other"), context_channels=16)
    head = LinearHeadConfig(n_classes=3)
    model = SegmentationModel(SegmentationModelConfig(encoder=encoder, head=head)).eval()
    other = SegmentationModel(SegmentationModelConfig(encoder=encoder, head=head, condition="other")).eval()
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(model.logits(batch), other.logits(batch))


def test_unknown_condition_is_refused(batch: Batch) -> None:
    encoder = PromptedSparseUNetConfig(**SMALL, conditions=("ScanNet",), context_channels=16)
    model = SegmentationModel(SegmentationModelConfig(encoder=encoder, head=LinearHeadConfig(n_classes=3)))
    with pytest.raises(ValueError, match="'toy'"):
        model(batch)
