"""Files with the names and shapes of the published weights, filled with zeros."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ponderv2.errors import CheckpointError
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.tasks.checkpoints import load_model, open_checkpoint
from ponderv2.tasks.published import variant_of
from ponderv2.tasks.rendering.published import pretext_settings
from ponderv2.training.published_checkpoints import official_state


def _smallest(generation: str) -> PretextModel:
    """The published ScanNet model of a generation with few channels in the encoder."""
    old = generation == "2023"
    factor = {"points_factor": 1.0 if old else 0.0}
    settings = {
        "encoder": {"kind": "sparse_unet"},
        "projection": {"kind": "unet3d", "out_channels": 128},
        "renderer": {"field": {"share_volume": old, "sdf": {"n_blocks": 1, **factor}}},
        "semantic": {"kind": "text", "n_classes": 20, "point_head": not old, "include_point_loss": False},
        "conditions": ["ScanNet"],
    }
    return PretextModel(PretextConfig.model_validate(settings))


@pytest.mark.parametrize("generation", ["2024", "2023"])
def test_the_generation_and_all_weights_of_a_published_file_are_recognised(
    tmp_path: Path, generation: str
) -> None:
    source = _smallest(generation)
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save(
        {"epoch": 7, "state_dict": state, "optimizer": {}, "best_metric_value": 0.1}, tmp_path / "m.pth"
    )
    variant = variant_of(official_state({"state_dict": state}))
    assert (variant.task, variant.generation, variant.prompted) == ("pretext", generation, False)
    loaded = load_model(tmp_path / "m.pth")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in source.state_dict().items())


def test_a_published_model_gives_its_encoder_and_is_refused_where_parts_are_missing(tmp_path: Path) -> None:
    state = {
        "module.backbone.backbone.conv_input.conv.weight": torch.zeros(32, 5, 5, 5, 6),
        "module.backbone.backbone.conv_input.bn.bns.0.weight": torch.zeros(32),
        "module.backbone.embedding_table.weight": torch.zeros(3, 256),
        "module.bias_head.0.weight": torch.zeros(96, 96),
        "module.seg_head.weight": torch.zeros(20, 96),
    }
    torch.save({"state_dict": state}, tmp_path / "m.pth")
    weights = open_checkpoint(tmp_path / "m.pth").weights
    assert {"backbone.conv_input.conv.weight", "embedding_table.weight"} <= set(weights)
    variant = variant_of(weights)
    assert (variant.task, variant.prompted, variant.n_classes) == ("instances", True, 20)
    with pytest.raises(CheckpointError, match="entries of the model fit"):
        load_model(tmp_path / "m.pth")


def test_joint_pretraining_renders_the_classes_of_each_dataset_as_published() -> None:
    state = {
        "backbone.conv_input.conv.weight": torch.zeros(32, 5, 5, 5, 6),
        "backbone.conv_input.bn.bns.0.weight": torch.zeros(32),
        "proj_net.encoders.0.weight": torch.zeros(1),
        "renderer.field.sdf_decoder.fc_c.0.weight": torch.zeros(128, 64),
        "class_embedding": torch.zeros(36, 512),
        "embedding_table.weight": torch.zeros(3, 256),
    }
    config = PretextConfig.model_validate(pretext_settings(state))
    assert config.semantic is not None and config.encoder.kind == "prompted_sparse_unet"
    rows = {name: config.semantic.rows_of(name) for name in config.conditions}  # type: ignore[union-attr]
    assert {name: len(index) for name, index in rows.items()} == {
        "Structured3D": 25,
        "ScanNet": 20,
        "S3DIS": 13,
    }
    assert rows["S3DIS"] == (0, 1, 4, 5, 6, 7, 8, 10, 19, 29, 30, 31, 32)


def test_files_without_an_encoder_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"fc.weight": torch.zeros(2)}}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="no sparse U-Net"):
        load_model(tmp_path / "m.pth")
