"""Parameter names and shapes against listings of the published modules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ponderv2.encoder.config import PromptedSparseUNetConfig, SparseUNetConfig
from ponderv2.encoder.kinds import build_encoder
from ponderv2.lift.config import ConvBlock3DConfig, UNet3DConfig
from ponderv2.lift.kinds import build_projection

V1M2 = SparseUNetConfig(norm_eps=1e-5, norm_momentum=0.1, unit_norm_momentum=0.02, pad=1, n_classes=20)
SMALL_CASES = {
    "pretrain_indoor_scannet_base": ("backbone.", SparseUNetConfig()),
    "pretrain_indoor_ppt_multi": ("backbone.", PromptedSparseUNetConfig()),
    "pretrain_outdoor_base": ("backbone.", SparseUNetConfig(in_channels=4)),
    "module_spunet_v1m2": ("", V1M2),
    "module_spunet_v1m1_cls": ("", SparseUNetConfig(pool_scenes=True, n_classes=40)),
}


def listed(request: pytest.FixtureRequest, name: str, prefix: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a listing that start with a prefix, without it."""
    folder: Path = request.config.getoption("--statedict-dir")
    path = folder / f"statedict_{name}.json"
    if not path.is_file():
        pytest.skip(f"no listing {path}; choose its folder with --statedict-dir")
    entries = json.loads(path.read_text())["state_dict"]
    return {
        key[len(prefix) :]: tuple(entry["shape"]) for key, entry in entries.items() if key.startswith(prefix)
    }


def own(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("name", SMALL_CASES)
def test_encoder_has_the_published_names_and_shapes(request: pytest.FixtureRequest, name: str) -> None:
    prefix, config = SMALL_CASES[name]
    expected = listed(request, name, prefix)
    if not prefix and "final.weight" in expected:
        config = config.model_copy(update={"n_classes": expected["final.weight"][0]})
    with torch.device("meta"):
        assert own(build_encoder(config)) == expected


@pytest.mark.parametrize(
    ("name", "config"),
    [("pretrain_indoor_scannet_base", UNet3DConfig()), ("pretrain_outdoor_base", ConvBlock3DConfig())],
)
def test_projection_has_the_published_names_and_shapes(
    request: pytest.FixtureRequest, name: str, config: UNet3DConfig | ConvBlock3DConfig
) -> None:
    expected = listed(request, name, "proj_net.")
    with torch.device("meta"):
        assert own(build_projection(config, 96)) == expected
