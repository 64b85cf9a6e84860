"""Names and shapes of whole models against listings of the published files, in both directions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ponder_cli.presets import load_preset
from ponderv2.encoder.config import PromptedSparseUNetConfig, SparseUNetConfig
from ponderv2.encoder.kinds import build_encoder
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.tasks.checkpoints import model_settings, our_names, recognise, task_of_settings
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.tasks.kinds import task_of
from ponderv2.tasks.published import variant_of
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.training.published_checkpoints import encoder_settings
from ponderv2.training.weights import compare, sizes, strip_wrappers
from ponderv2.workflows.config import PretrainConfig

Shapes = dict[str, tuple[int, ...]]

WHOLE = {
    "pretrain_indoor_scannet_base": ("pretext", "2024", "none", 434),
    "pretrain_indoor_ppt_multi": ("pretext", "2024", "none", 1142),
    "pretrain_indoor_ppt_multi_dec2023": ("pretext", "2023", "none", 1140),
    "semseg_spunet_v1m1_scannet": ("segmentation", "none", "final", 356),
    "ft_semseg_ppt_scannet": ("segmentation", "none", "language", 1067),
    "ft_semseg_ppt_scannet200": ("segmentation", "none", "final", 1065),
    "ft_insseg_pointgroup_scannet": ("instances", "none", "pointgroup", 1074),
    "ft_insseg_pointgroup_scannet200": ("instances", "none", "pointgroup", 1074),
    "module_ppt_v1m2": ("segmentation", "none", "decoupled", 715),
}
"""Task, generation, head and number of entries."""


def listed(request: pytest.FixtureRequest, name: str) -> Shapes:
    """Names and shapes of a listing."""
    folder: Path = request.config.getoption("--statedict-dir")
    path = folder / f"statedict_{name}.json"
    if not path.is_file():
        pytest.skip(f"no listing {path}; choose its folder with --statedict-dir")
    entries = json.loads(path.read_text())["state_dict"]
    return {key: tuple(entry["shape"]) for key, entry in entries.items()}


def weightless(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of these shapes that take no memory."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def built(kind: str, settings: dict[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model of some settings, without memory for its weights, and the settings written out."""
    with torch.device("meta"):
        if kind == "pretext":
            config = PretextConfig.model_validate(settings)
            return PretextModel(config), config.model_dump(mode="json")
        if kind == "instances":
            instances = InstancesModelConfig.model_validate(settings)
            return InstancesModel(instances), instances.model_dump(mode="json")
        config = SegmentationModelConfig.model_validate(settings)
        return SegmentationModel(config), config.model_dump(mode="json")


@pytest.mark.parametrize("name", WHOLE)
def test_a_published_file_is_recognised_by_its_names(request: pytest.FixtureRequest, name: str):
    state = strip_wrappers(weightless(listed(request, name)))
    variant = variant_of(state)
    task, generation, head, n_entries = WHOLE[name]
    assert (variant.task, variant.generation, len(state)) == (task, generation, n_entries)
    assert head in (variant.head, "none")


@pytest.mark.parametrize("name", WHOLE)
def test_the_model_of_a_published_file_takes_every_entry_and_gives_it_back(
    request: pytest.FixtureRequest, name: str
):
    shapes = listed(request, name)
    state = strip_wrappers({f"module.{key}": value for key, value in weightless(shapes).items()})
    model, config = built(WHOLE[name][0], model_settings(state))
    report = compare(model.state_dict(), our_names(state, WHOLE[name][0]))
    assert not report.rows() and len(report.matched) == WHOLE[name][3]
    task = task_of_settings(Path(name), WHOLE[name][0], config)
    exported = task.published_weights(model.state_dict())
    assert {key: tuple(value.shape) for key, value in exported.items()} == shapes


@pytest.mark.parametrize("name", WHOLE)
def test_parameters_are_counted_without_buffers_as_the_listing_says(
    request: pytest.FixtureRequest, name: str
):
    shapes = listed(request, name)
    folder: Path = request.config.getoption("--statedict-dir")
    entries = json.loads((folder / f"statedict_{name}.json").read_text())["state_dict"]
    count = {"param": 0, "buffer": 0}
    for key, entry in entries.items():
        count[entry["kind"]] += math.prod(shapes[key])
    assert sizes(weightless(shapes)) == (count["param"], count["buffer"])


OUTDOOR = {"base": ("nuscenes-official", 391), "color": ("nuscenes_color-official", 409)} | {
    "semantic": ("nuscenes_semantic-official", 410)
}
"""Preset and number of entries."""


@pytest.mark.parametrize("name", OUTDOOR)
def test_an_outdoor_file_gives_its_encoder(request: pytest.FixtureRequest, name: str):
    state = strip_wrappers(weightless(listed(request, f"pretrain_outdoor_{name}")))
    assert variant_of(state).task == "outdoor"
    encoder = {key: value for key, value in state.items() if key.startswith("backbone.")}
    config = SparseUNetConfig.model_validate(encoder_settings(state))
    assert config == SparseUNetConfig(in_channels=4)
    with torch.device("meta"):
        wanted = {f"backbone.{key}": value for key, value in build_encoder(config).state_dict().items()}
    assert not compare(wanted, encoder).rows()


@pytest.mark.parametrize("name", OUTDOOR)
def test_the_model_of_an_outdoor_file_is_that_of_its_preset(request: pytest.FixtureRequest, name: str):
    preset, n_entries = OUTDOOR[name]
    shapes = listed(request, f"pretrain_outdoor_{name}")
    state = strip_wrappers({f"module.{key}": value for key, value in weightless(shapes).items()})
    settings = model_settings(state)
    config = load_preset("pretrain", preset, None, PretrainConfig)
    expected = PretextConfig.model_validate(config.model.model_dump(mode="json"))
    assert PretextConfig.model_validate(settings) == expected
    model, written = built("pretext", settings)
    names = our_names(state, "pretext")
    report = compare(model.state_dict(), names)
    assert not report.rows() and len(shapes) == n_entries
    assert set(names) - set(state) <= {"logit_scale"}
    task = task_of_settings(Path(name), "pretext", written)
    exported = task.published_weights(model.state_dict())
    assert {key: tuple(value.shape) for key, value in exported.items()} == shapes
    points = recognise(state).points
    assert points is not None
    for key, value in points.items():
        own = config.data.model_dump(mode="json")[key]
        assert (own if not isinstance(value, dict) else {one: own[one] for one in value}) == value


@pytest.mark.parametrize("name", ["spunet_v1m2", "spunet_v1m1_cls"])
def test_bare_encoders_are_read_with_their_classes(request: pytest.FixtureRequest, name: str):
    shapes = listed(request, f"module_{name}")
    state = strip_wrappers(weightless(shapes))
    settings = {**encoder_settings(state), "n_classes": shapes["final.weight"][0]}
    if name == "spunet_v1m2":
        settings |= {"norm_eps": 1e-5, "norm_momentum": 0.1, "unit_norm_momentum": 0.02, "pad": 1}
    with torch.device("meta"):
        encoder = build_encoder(SparseUNetConfig.model_validate(settings))
    assert {key: tuple(value.shape) for key, value in encoder.state_dict().items()} == shapes
    assert settings.get("pool_scenes", False) == (name == "spunet_v1m1_cls")


@pytest.mark.parametrize(
    ("preset", "name"), [("scannet-official", "scannet_base"), ("joint-official", "ppt_multi")]
)
def test_the_official_presets_build_the_published_files(
    request: pytest.FixtureRequest, preset: str, name: str
):
    shapes = listed(request, f"pretrain_indoor_{name}")
    config = load_preset("pretrain", preset, None, PretrainConfig).model
    model, _ = built("pretext", config.model_dump(mode="json"))
    exported = task_of(config).published_weights(model.state_dict())
    assert {key: tuple(value.shape) for key, value in exported.items()} == shapes


def residual(prefix: str, n_in: int, n_out: int, norm: str) -> set[str]:
    """Documented entries of a residual block: two convolutions with norms, and a shortcut at a new width."""
    plain = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {f"{prefix}.conv{i}.weight" for i in (1, 2)}
    norms = [f"{prefix}.bn1", f"{prefix}.bn2"]
    if n_in != n_out:
        shortcut = ("proj.0", "proj.1") if norm == "plain" else ("proj_conv", "proj_norm")
        names.add(f"{prefix}.{shortcut[0]}.weight")
        norms.append(f"{prefix}.{shortcut[1]}")
    for one in norms:
        names |= normalisation(one, norm, plain)
    return names


def normalisation(name: str, norm: str, plain: tuple[str, ...]) -> set[str]:
    """One batch norm, or one per dataset with a linear layer that modulates."""
    if norm == "plain":
        return {f"{name}.{part}" for part in plain}
    return {f"{name}.bns.{i}.{part}" for i in range(3) for part in plain} | {
        f"{name}.modulation.1.{part}" for part in ("weight", "bias")
    }


@pytest.mark.parametrize("norm", ["plain", "prompted"])
def test_encoder_names_follow_the_documented_rules(norm: str):
    plain = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    conv, bn = ("0", "1") if norm == "plain" else ("conv", "bn")
    units = ["conv_input", *(f"{side}.{s}" for side in ("down", "up") for s in range(4))]
    expected = {f"{unit}.{conv}.weight" for unit in units}
    for unit in units:
        expected |= normalisation(f"{unit}.{bn}", norm, plain)
    widths, depths, skips = (32, 64, 128, 256), (2, 3, 4, 6), (32, 32, 64, 128)
    upward = (96, 96, 128, 256)
    for s in range(4):
        for i in range(depths[s]):
            expected |= residual(f"enc.{s}.block{i}", widths[s], widths[s], norm)
        for i in range(2):
            n_in = upward[s] + skips[s] if i == 0 else upward[s]
            expected |= residual(f"dec.{s}.block{i}", n_in, upward[s], norm)
    config = SparseUNetConfig() if norm == "plain" else PromptedSparseUNetConfig()
    with torch.device("meta"):
        assert set(build_encoder(config).state_dict()) == expected
