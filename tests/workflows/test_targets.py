"""Pre-training with further targets, through the workflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ponderv2.errors import PresetError
from ponderv2.workflows import pretrain
from ponderv2.workflows.config import PretrainConfig
from tests.workflows.tiny import pretrain_config, rooms


def config_with(targets: dict[str, Any], **training: Any) -> PretrainConfig:
    values = pretrain_config(**training).model_dump()
    values["model"]["targets"] = targets
    return PretrainConfig.model_validate(values)


def test_normals_of_depth_are_a_loss_of_their_own(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    config = config_with({"normal": {"weight": 0.5}}, steps=2, evaluate_every=0)
    result = pretrain.run(config, scenes=scenes, out=tmp_path / "runs")
    assert 0 < result.losses["normal"] < 0.5 * (3 + 2)
    assert "clusters" not in result.losses
    plain = pretrain.run(pretrain_config(steps=2, evaluate_every=0), scenes=scenes, out=tmp_path / "plain")
    assert "normal" not in plain.losses and plain.losses["loss"] != result.losses["loss"]


def test_image_features_need_their_settings(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    with pytest.raises(PresetError, match=r"data\.image_features"):
        pretrain.run(config_with({"image_features": {}}), scenes=scenes, out=tmp_path / "runs")
