"""The runner of outdoor cases: a case that a slow twin made is accepted, a wrong one is not.

The sparse U-Net is ours, as cases of its own hold it to published numbers; all after it is that of the twin:
cells, convolution, rays, samples, decoders, compositing, losses.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ponder_cli.presets import load_preset
from ponderv2.geometry.rays import RayBundle
from ponderv2.lift.kinds import build_projection
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.renderer.renderer import Renderer
from ponderv2.scenes.batch import Batch
from ponderv2.workflows.config import PretrainConfig
from tests.golden import test_ponder_outdoor as runner
from tests.golden import test_projection, test_renderer
from tests.golden.cases import Case, fill_weights, find_cases, seeded_normal
from tests.golden.official_configs import projection_config
from tests.golden.official_outdoor import outdoor_config
from tests.golden.official_renderer import channels, renderer_config
from tests.golden.outdoor_twin import Twin, TwinRay, convolved, scattered
from tests.golden.test_runner import BACKBONE, Arrays, reduced, refuses, weights, write

FIELD = {
    "sdf_decoder": {"in_dim": 32, "out_dim": 17, "hidden_size": 16, "n_blocks": 5},
    "beta_init": 0.3, "use_gradient": True, "share_volume": True, "norm_pts": False,
}  # fmt: skip
BASE: dict[str, Any] = {
    "type": "PonderOutdoor-v2",
    "backbone": {"type": "SpUNet-v1m1", "in_channels": 4, "num_classes": 0},
    "projection": {"type": "SimpleConv3D-v1m1", "in_channels": 96, "out_channels": 32},
    "renderer": {
        "type": "NeuSModel",
        "field": FIELD,
        "collider": {"type": "AABBBoxCollider", "near_plane": 0.01, "bbox": [0, 0, 0, 1, 1, 1]},
        "sampler": {
            "type": "NeuSSampler", "initial_sampler": "UniformSampler", "num_samples": 72,
            "num_samples_importance": 24, "num_upsample_steps": 1, "train_stratified": True,
            "single_jitter": False,
        },
        "loss": {"sensor_depth_truncation": 0.01, "temperature": 0.01, "weights": {"depth_loss": 10.0}},
    },
    "mask": {"size": 8, "ratio": 0.8, "channel": 4},
    "scene_bbox": [[-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]],
    "grid_shape": [[180, 180, 5]],
    "grid_size": [[0.6, 0.6, 1.6]],
}  # fmt: skip
"""Of the published base configuration."""
COLOR = {"in_dim": 54, "out_dim": 3, "hidden_size": 16, "n_blocks": 3}
SEMANTIC = {"in_dim": 51, "out_dim": 512, "hidden_size": 16, "n_blocks": 3}


def with_color(config: dict[str, Any]) -> dict[str, Any]:
    config["renderer"]["field"]["rgb_decoder"] = deepcopy(COLOR)
    config["renderer"]["loss"]["weights"]["rgb_loss"] = 10.0
    return config


def with_semantics(config: dict[str, Any], n_classes: int = 16) -> dict[str, Any]:
    config["renderer"]["field"]["semantic_decoder"] = deepcopy(SEMANTIC)
    config["renderer"]["loss"]["weights"]["semantic_loss"] = 0.1
    names = [f"class{number}" for number in range(n_classes)]
    return config | {"render_semantic": True, "class_name": names, "valid_index": [list(range(n_classes))]}


def official(kind: str) -> dict[str, Any]:
    """The published settings of one of the three outdoor models."""
    config = deepcopy(BASE)
    return {"base": lambda c: c, "color": with_color, "semantic": with_semantics}[kind](config)


@pytest.mark.parametrize("kind", ["base", "color", "semantic"])
def test_the_published_settings_are_those_of_our_presets(kind: str) -> None:
    """So that a case of the published size is run against what `ponder pretrain --preset` trains."""
    name = "nuscenes-official" if kind == "base" else f"nuscenes_{kind}-official"
    preset = load_preset("pretrain", name, None, PretrainConfig).model.model_dump(mode="json")
    assert _applied(outdoor_config(official(kind))) == _applied(PretextConfig.model_validate(preset))


def _applied(config: PretextConfig) -> dict[str, Any]:
    """Settings, without those of semantics where none are rendered."""
    values = config.model_dump(mode="json")
    if config.semantic is None:
        del values["renderer"]["field"]["semantic"], values["losses"]["semantic"]
    return values


# --- a case of the twin


def small(kind: str) -> dict[str, Any]:
    """The same model, narrow, in a range of 12 x 8 x 5 cells."""
    config = official(kind)
    config["backbone"] = BACKBONE | {"type": "SpUNet-v1m1", "in_channels": 4, "num_classes": 0}
    width = config["backbone"]["channels"][-1]
    config["projection"] |= {"in_channels": width, "out_channels": 6}
    field = config["renderer"]["field"]
    field["sdf_decoder"] |= {"in_dim": 6, "out_dim": 6, "hidden_size": 7, "n_blocks": 2}
    for name, in_dim in (("rgb_decoder", 17), ("semantic_decoder", 14)):
        if name in field:
            field[name] |= {"in_dim": in_dim, "hidden_size": 7, "n_blocks": 1}
    config["renderer"]["sampler"] |= {"num_samples": 10, "num_samples_importance": 5}
    if kind == "semantic":
        config |= {"class_name": ["a", "b", "c"], "valid_index": [[0, 1, 2]]}
    box = {"scene_bbox": [[-6.0, -4.0, -5.0, 6.0, 4.0, 3.0]], "grid_shape": [[12, 8, 5]]}
    return config | box | {"grid_size": [[1.0, 1.0, 1.6]]}


def inputs(kind: str, rng: torch.Generator) -> Arrays:
    """Two scenes of points in the range, three rays to points of each."""
    box = torch.tensor([12.0, 8.0, 8.0])
    coord, cells, ends = [], [], []
    for _ in range(2):
        cell = torch.unique((torch.rand(80, 3, generator=rng) * (box / 0.5 - 1)).long(), dim=0)
        coord.append((cell + 0.3) * 0.5 - torch.tensor([6.0, 4.0, 5.0]))
        cells.append(cell - cell.amin(0))
        ends.append(coord[-1][:3])
    n_points = sum(map(len, coord))
    start = torch.tensor([[0.4, 0.1, 0.2], [-0.3, 0.2, 0.1], [0.1, -0.2, 0.3]]).repeat(2, 1)
    noise = torch.rand(6, 17, generator=rng)
    found: Arrays = {
        "in_coord": torch.cat(coord),
        "in_grid_coord": torch.cat(cells),
        "in_feat": seeded_normal("feat", (n_points, 4)),
        "in_offset": torch.tensor([len(coord[0]), n_points]),
        "in_ray_start": start,
        "in_ray_end": torch.cat(ends),
        "in_ray_offset": torch.tensor([3, 6]),
        "in_rand_uniform": noise[:, :11],
        "in_rand_pdf": noise[:, 11:],
        "in_mask": torch.arange(n_points) % 3 == 0,
    }
    if kind == "color":
        found["in_ray_color"] = torch.rand(6, 3, generator=rng)
    if kind == "semantic":
        found |= {"in_class_embedding": seeded_normal("classes", (3, 512))}
        found |= {"in_ray_segment": torch.tensor([0, 1, 2, -1, 0, 1])}
    return found


def made_by_the_twin(config: dict[str, Any], case: Case, model: PretextModel, mode: str) -> Arrays:
    """Outputs of a mode, from the features of the encoder on."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    train = mode == "train"
    model.train(train)
    with torch.no_grad():
        hidden = runner.masked(case, model, runner.batch_of(case), mode)
        feature = model.encode(hidden).feature.double()
    model.load_state_dict(state)
    box, n_first = config["scene_bbox"][0], int(case.tensor("in_offset")[0])
    scene = [int(row >= n_first) for row in range(len(feature))]
    volume = convolved(
        scattered(case.tensor("in_coord"), feature, scene, box, tuple(config["grid_shape"][0])), state, train
    )
    low, side = (
        torch.tensor(box[:3]).double(),
        torch.tensor(box[3:]).double() - torch.tensor(box[:3]).double(),
    )
    start, end = ((case.tensor(f"in_ray_{name}").double() - low) / side for name in ("start", "end"))
    target = (end - start).norm(dim=1)
    rays: list[TwinRay] = []
    for row in range(6):
        twin = Twin(config["renderer"], state, volume[row // 3])
        uniform, pdf = (case.tensor(f"in_rand_{name}")[row] if train else None for name in ("uniform", "pdf"))
        rays.append(twin.ray(start[row], (end[row] - start[row]) / target[row], uniform, pdf))
    return _arrays(case, config, mode, feature, volume, rays) | (
        _losses(case, config, rays, target) if train else {}
    )


def _stacked(rays: list[TwinRay], name: str) -> Tensor:
    return torch.stack([getattr(one, name) for one in rays]).detach()


def _arrays(
    case: Case, config: dict[str, Any], mode: str, feature: Tensor, volume: Tensor, rays: list[TwinRay]
) -> Arrays:
    names = ["normal", "z_vals", "sdf", "weights", "gradients"]
    names += [one for one in ("rgb", "semantic") if getattr(rays[0], one) is not None]
    found: Arrays = {f"out_{mode}_{name}": _stacked(rays, name).float() for name in names}
    found[f"out_{mode}_depth"] = _stacked(rays, "depth")[:, None].float()
    found |= reduced(f"out_{mode}_backbone", feature, 4)
    return found | reduced(f"out_{mode}_volume", volume.permute(0, 2, 3, 4, 1).flatten(0, 3), 3)


def _losses(case: Case, config: dict[str, Any], rays: list[TwinRay], target: Tensor) -> Arrays:
    """Weighted terms and their sum."""
    given = config["renderer"]["loss"]["weights"]
    found = {"depth_loss": (_stacked(rays, "depth") - target).abs().mean()}
    if "rgb_loss" in given:
        found["rgb_loss"] = (_stacked(rays, "rgb") - case.tensor("in_ray_color")).abs().mean()
    if "semantic_loss" in given:
        rows = case.tensor("in_class_embedding").double()[case.tensor("in_ray_segment")]  # -1: the last class
        logits = F.normalize(_stacked(rays, "semantic"), dim=1) @ rows.T / 0.01
        found["semantic_loss"] = -logits.log_softmax(dim=1).diagonal().mean()
    weighted = {name: given[name] * value for name, value in found.items()}
    total = torch.stack(list(weighted.values())).sum()
    return {
        f"out_train_{name}": np.array(float(value)) for name, value in (weighted | {"loss": total}).items()
    }


@pytest.fixture(scope="module", params=["base", "color", "semantic"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Arrays]:
    """A case of the twin in both modes, and its arrays."""
    config, folder = small(request.param), tmp_path_factory.mktemp(request.param)
    module = PretextModel(outdoor_config(config))
    arrays = inputs(request.param, torch.Generator().manual_seed(0)) | weights(module)
    bare = write(folder / "bare.npz", config, arrays)
    model = runner.model_of(bare)
    for mode in ("train", "eval"):
        arrays |= made_by_the_twin(config, bare, model, mode)
    bare.path.unlink()
    return write(folder / "a.npz", config, arrays), arrays


def in_double(case: Case) -> tuple[PretextModel, Batch]:
    """In single precision, rounding moves the samples of rays that meet no surface by 3e-4."""
    return runner.model_of(case).double(), runner.batch_of(case, torch.float64)


CHECKS = (
    runner.test_rays_and_targets_are_the_published_ones,
    runner.test_one_training_step_is_the_published_one,
    runner.test_evaluation_is_the_published_one,
)


def test_a_case_of_the_twin_is_found_by_its_content_and_accepted(made: tuple[Case, Arrays]) -> None:
    case, _ = made
    assert [one.path for one in find_cases(case.path.parent, runner.KIND)] == [case.path]
    assert not runner.unread(case)
    for check in CHECKS:
        check(case, *in_double(case))


@pytest.mark.parametrize("wrong", ["depth", "sdf", "weights", "loss", "backbone", "volume", "mask", "end"])
def test_a_wrong_number_is_noticed(made: tuple[Case, Arrays], tmp_path: Path, wrong: str) -> None:
    """In either mode; hidden voxels and ends of rays change all that follows."""
    case, arrays = made
    changed = {"mask": {"in_mask": arrays["in_mask"].roll(1)}} | {
        "end": {"in_ray_end": arrays["in_ray_start"] + 1}
    }
    own = changed.get(wrong)
    if own is None:
        names = [
            name for name in arrays if name.startswith(("out_train_", "out_eval_")) and f"_{wrong}" in name
        ]
        own = {name: arrays[name] * 1.05 + 0.01 for name in names if not name.endswith("__rows")}
        assert own
    other = write(tmp_path / "b.npz", case.config, arrays | own)
    model, batch = in_double(other)
    refuses(lambda: runner.test_one_training_step_is_the_published_one(other, model, batch))
    if wrong != "loss":
        refuses(lambda: runner.test_evaluation_is_the_published_one(other, model, batch))


def test_the_one_convolution_of_the_twin_is_accepted_in_both_modes(tmp_path: Path) -> None:
    """As a case of its own: 96 channels would be read alike."""
    config = {"type": "SimpleConv3D-v1m1", "in_channels": 3, "out_channels": 4}
    module, volume = build_projection(projection_config(config), 3), seeded_normal("volume", (2, 3, 2, 4, 5))
    arrays = weights(module) | {"in_volume": volume}
    bare = write(tmp_path / "bare.npz", config, arrays)
    fill_weights(module, bare)
    state = {f"proj_net.{name}": value.clone() for name, value in module.state_dict().items()}
    found = {f"out_{mode}": convolved(volume.double(), state, mode == "train") for mode in ("train", "eval")}
    forms = {name: value.permute(0, 2, 3, 4, 1).flatten(0, 3).float() for name, value in found.items()}
    case = write(tmp_path / "a.npz", config, arrays | forms)
    assert case.kind == test_projection.KIND
    check = test_projection.test_volume_and_gradients_equal_the_published_network
    for mode in ("train", "eval"):
        check(case, mode)
        other = write(tmp_path / "b.npz", config, arrays | {f"out_{mode}": forms[f"out_{mode}"].roll(1, 0)})
        refuses(lambda one=other, of=mode: check(one, of))


@pytest.mark.parametrize("kind", ["base", "color", "semantic"])
def test_the_outdoor_renderer_of_the_twin_is_accepted(tmp_path: Path, kind: str) -> None:
    """As a case of its own: a volume read at 0..1, whose channels feed all decoders."""
    config = small(kind)["renderer"]
    module = Renderer(renderer_config(config), *channels(config))
    volume = seeded_normal("volume", (6, 4, 5, 6))
    start = torch.tensor([[0.5, 0.5, 0.5], [0.4, 0.6, 0.3]])
    direction = F.normalize(torch.tensor([[1.0, 0.3, -0.2], [-0.5, 0.1, 0.4]]), dim=1)
    arrays = weights(module) | {"in_volume": volume, "in_ray_o": start, "in_ray_d": direction}
    bare = write(tmp_path / "bare.npz", config, arrays)
    setting = test_renderer.setting_of(bare)
    twin = Twin(
        config,
        {f"renderer.{name}": value for name, value in setting.renderer.state_dict().items()},
        volume.double(),
    )
    rays = [twin.ray(start[row].double(), direction[row].double(), None, None) for row in range(2)]
    found = {
        f"out_eval_{name}": _stacked(rays, name).float() for name in ("z_vals", "sdf", "weights", "normal")
    }
    found["out_eval_depth"] = _stacked(rays, "depth")[:, None].float()
    found |= {f"out_eval_{name}": _stacked(rays, name).float() for name in _decoders(config)}
    check = test_renderer.test_pictures_and_samples_are_the_published_ones
    check(_renderer_in_double(write(tmp_path / "a.npz", config, arrays | found)), "eval")
    wrong = found | {"out_eval_depth": found["out_eval_depth"] * 1.01}
    refuses(lambda: check(_renderer_in_double(write(tmp_path / "b.npz", config, arrays | wrong)), "eval"))


def _decoders(config: dict[str, Any]) -> list[str]:
    return [name for name in ("rgb", "semantic") if f"{name}_decoder" in config["field"]]


def _renderer_in_double(case: Case) -> test_renderer.Setting:
    setting = test_renderer.setting_of(case)
    volume = replace(
        setting.volume,
        values=setting.volume.values.detach().double(),
        lower=setting.volume.lower.double(),
        upper=setting.volume.upper.double(),
    )
    rays = RayBundle(setting.rays.origins.double(), setting.rays.directions.double(), setting.rays.scene)
    return replace(setting, renderer=setting.renderer.double(), volume=volume, rays=rays)


def test_an_output_that_no_test_compares_is_reported(made: tuple[Case, Arrays], tmp_path: Path) -> None:
    case, arrays = made
    other = write(tmp_path / "b.npz", case.config, arrays | {"out_eval_occupancy": torch.zeros(3)})
    assert runner.unread(other) == ["out_eval_occupancy"]
    with pytest.raises(pytest.skip.Exception, match="out_eval_occupancy"):
        runner.test_every_output_of_the_case_is_compared(other)
