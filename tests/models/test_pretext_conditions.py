"""The joint pre-training model: whose norms, prompts and classes a batch uses, what the point loss trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ponderv2.models.config import PretextConfig, TextTargetConfig
from ponderv2.models.pretext import PretextModel, PretextStep, class_cosines, point_loss
from ponderv2.scenes.batch import Batch, PixelBatch
from tests.sparse.twins import random_voxels

BACKBONE_ORDER = ("ScanNet", "S3DIS", "Structured3D")
TABLE_ORDER = ("Structured3D", "ScanNet", "S3DIS")
ROWS = {"Structured3D": (0, 1, 2, 3, 4), "ScanNet": (5, 4, 3), "S3DIS": (2, 0, 5, 1)}


def config(**semantic: Any) -> PretextConfig:
    """The two orders differ, as published."""
    return PretextConfig.model_validate(
        {
            "encoder": {
                "kind": "prompted_sparse_unet",
                "base_channels": 4,
                "channels": [6, 6, 6, 6],
                "layers": [1, 1, 1, 1],
                "context_channels": 5,
                "conditions": BACKBONE_ORDER,
            },
            "context_channels": 5,
            "conditions": TABLE_ORDER,
            "frame": {"kind": "cube", "cells": [8, 8, 8]},
            "projection": {"kind": "unet3d", "f_maps": 4, "n_levels": 2, "out_channels": 8},
            "renderer": {
                "field": {"sdf": {"hidden": 8}, "color": {"hidden": 8}, "geometry_channels": 4},
                "sampler": {"kind": "neus", "initial": {"n_samples": 8}, "n_importance": 4},
            },
            "semantic": {
                "kind": "text",
                "n_classes": 6,
                "n_channels": 7,
                "valid_index": ROWS,
                "point_head": True,
                **semantic,
            },
            "losses": {"semantic_target": {"kind": "contrastive"}},
        }
    )


def batch_of(condition: str, rng: torch.Generator) -> Batch:
    """Voxels of two scenes with labels, each looked at by one camera."""
    grid_coord, scene = random_voxels(rng, n_scenes=2, size=8)
    scene, order = torch.sort(scene, stable=True)
    grid_coord, n = grid_coord[order], len(scene)
    camera = torch.eye(4)
    camera[:3, 3] = torch.tensor([-0.8, -0.8, 1.0])
    pixel = torch.rand(20, 2, generator=rng) * 8
    return Batch(
        coord=grid_coord * 0.2 + 0.1,
        grid_coord=grid_coord,
        feature=torch.randn(n, 6, generator=rng),
        offset=torch.bincount(scene).cumsum(0),
        segment=torch.randint(-1, len(ROWS[condition]), (n,), generator=rng),
        units_per_metre=torch.ones(2),
        condition=condition,
        names=("a", "b"),
        pixels=PixelBatch(
            intrinsics=torch.tensor([[8.0, 0, 4], [0, 8.0, 4], [0, 0, 1]]).repeat(2, 1, 1),
            world_to_camera=camera.repeat(2, 1, 1),
            view_scene=torch.tensor([0, 1]),
            view=torch.arange(20) // 10,
            pixel=pixel,
            color=torch.rand(20, 3, generator=rng),
            depth=1.0 + torch.rand(20, generator=rng),
            label=torch.randint(-1, len(ROWS[condition]), (20,), generator=rng),
        ),
    )


def step_of(model: PretextModel, batch: Batch) -> PretextStep:
    return model(batch, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("condition", TABLE_ORDER)
def test_the_point_loss_trains_head_and_encoder(condition: str, rng: torch.Generator) -> None:
    """The published code reports it and never calls backward on it."""
    model, batch = PretextModel(config()), batch_of(condition, rng)
    step_of(model, batch).losses.point.backward()
    for parameter in model.proj_head.parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0
    untouched = {name for name, value in model.named_parameters() if value.grad is None}
    others = [i for i, name in enumerate(BACKBONE_ORDER) if name != condition]
    for name, parameter in model.backbone.named_parameters():
        is_of_others = any(f".bns.{i}." in name for i in others)
        assert (f"backbone.{name}" in untouched) == is_of_others, name
        assert is_of_others or parameter.grad.abs().sum() > 0 or "block" in name, name  # type: ignore[union-attr]
    rows = model.embedding_table.weight.grad.abs().sum(1) > 0  # type: ignore[union-attr]
    assert rows.tolist() == [name == condition for name in TABLE_ORDER]
    assert all(name in untouched for name, _ in model.named_parameters() if name.startswith("renderer."))


@pytest.mark.parametrize("condition", TABLE_ORDER)
def test_the_point_loss_is_cross_entropy_with_the_rows_of_the_dataset(
    condition: str, rng: torch.Generator
) -> None:
    model, batch = PretextModel(config(point_loss_weight=0.25)), batch_of(condition, rng)
    step = step_of(model, batch)
    embedded = model.proj_head(model.train().encode(batch, torch.Generator().manual_seed(1)).feature)
    rows = model.class_embedding[list(ROWS[condition])]
    total, count = 0.0, 0
    for vector, label in zip(embedded, batch.segment.tolist(), strict=True):
        if label >= 0:
            logits = torch.stack([100.0 * vector @ row / vector.norm() / row.norm() for row in rows])
            total, count = total + torch.logsumexp(logits, 0) - logits[label], count + 1
    torch.testing.assert_close(step.point_loss, (total / count).detach(), rtol=1e-4, atol=1e-4)  # type: ignore[union-attr]
    torch.testing.assert_close(step.losses.point, 0.25 * step.point_loss, rtol=1e-4, atol=1e-4)
    terms = [getattr(step.losses, name) for name in ("color", "depth", "sdf", "free_space", "eikonal")]
    torch.testing.assert_close(
        step.losses.total(), torch.stack([*terms, step.losses.semantic, step.losses.point]).sum()
    )


def test_as_published_the_point_loss_is_reported_and_trains_nothing(rng: torch.Generator) -> None:
    model, batch = PretextModel(config(include_point_loss=False)), batch_of("ScanNet", rng)
    step = step_of(model, batch)
    assert step.point_loss > 0 and step.losses.point == 0
    step.losses.total().backward()
    assert all(parameter.grad is None for parameter in model.proj_head.parameters())


def test_embedding_row_follows_the_table_and_norm_follows_the_encoder(rng: torch.Generator) -> None:
    model = PretextModel(config()).eval()
    voxels = batch_of("ScanNet", rng)
    before = {name: model.encode_points(replace(voxels, condition=name)) for name in TABLE_ORDER}
    with torch.no_grad():
        model.embedding_table.weight[1] += 1.0  # ScanNet
        model.backbone.conv_input.bn.bns[1].bias += 1.0  # type: ignore[union-attr,index]  # S3DIS
    changed = [
        name
        for name in TABLE_ORDER
        if not torch.equal(model.encode_points(replace(voxels, condition=name)), before[name])
    ]
    assert changed == ["ScanNet", "S3DIS"]


def test_rendered_classes_are_compared_with_the_rows_of_the_dataset(rng: torch.Generator) -> None:
    model = PretextModel(config())
    for name, rows in ROWS.items():
        assert torch.equal(model.class_rows(name), model.class_embedding[list(rows)])  # type: ignore[arg-type]
    plain = PretextModel(config(valid_index=[3, 1]))
    assert torch.equal(plain.class_rows("anything"), plain.class_embedding[[3, 1]])  # type: ignore[arg-type]


def test_unlabelled_points_give_no_loss(rng: torch.Generator) -> None:
    logits = torch.randn(5, 7, generator=rng, requires_grad=True)
    cosines = class_cosines(logits, torch.eye(7)[:3])
    loss = point_loss(cosines, torch.full((5,), -1), torch.tensor(4.6))
    loss.backward()
    assert loss == 0 and logits.grad is not None and (logits.grad == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid_index": {"ScanNet": [0]}}, "no rows for the dataset 'Structured3D'"),
        ({"valid_index": [6]}, "valid_index names row 6, there are 6"),
        ({"class_names": ["wall"]}, "1 class_names for 6 classes"),
    ],
)
def test_rows_that_do_not_exist_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**change)


def test_another_width_of_the_vectors_than_in_the_encoder_is_refused() -> None:
    plain = config().model_dump() | {"context_channels": 7}
    with pytest.raises(ValueError, match=r"context_channels is 7, encoder\.context_channels 5"):
        PretextConfig.model_validate(plain)


def test_names_of_the_rows_are_the_vocabulary_where_there_are_36() -> None:
    assert TextTargetConfig(n_classes=36).names[19] == "ceiling"  # type: ignore[index]
    assert TextTargetConfig(n_classes=20).names is None
