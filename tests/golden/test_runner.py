"""The runner itself: cases made here, in every form that a case may have, and cases that are wrong.

The outputs are our own, so these tests say nothing about parity: they say that a right number is accepted and
that a wrong one is not, whatever the form, size or rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ponderv2.data.voxelise import fnv_hash, grid_cells, group_by_voxel
from ponderv2.encoder.kinds import build_encoder
from ponderv2.geometry.voxels import SparseVoxels, batch_index
from ponderv2.lift.kinds import build_projection
from tests.golden import test_ponder_indoor, test_projection, test_renderer, test_sparse_unet, test_transforms
from tests.golden.cases import Case, InputRule, fill_weights, rule_of_text, seeded_normal
from tests.golden.compare import assert_rows
from tests.golden.official_configs import encoder_config, projection_config

Arrays = dict[str, Any]


def weights(module: nn.Module, prefix: str = "") -> Arrays:
    """`param_*` of a module, by the kinds of the weight rule."""
    kept = ("deviation_network.variance", "laplace_density.beta", "laplace_density.beta_min", "logit_scale")
    names, kinds, shapes = [], [], []
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        last = name.rsplit(".", 1)[-1]
        kind = "matrix" if value.ndim >= 2 else {"weight": "norm_weight"}.get(last, last)
        kind = "keep" if name.endswith(kept) else "explicit" if name == "class_embedding" else kind
        names.append(prefix + name)
        kinds.append(kind)
        shapes.append(",".join(map(str, value.shape)))
    return {"param_names": np.array(names), "param_kinds": np.array(kinds), "param_shapes": np.array(shapes)}


def write(path: Path, config: Any, arrays: Arrays, **meta: Any) -> Case:
    """A case of these arrays."""
    text = json.dumps({"title": "made here", "salt": "", "config": config, **meta})
    plain = {
        name: value.detach().numpy() if isinstance(value, Tensor) else value for name, value in arrays.items()
    }
    np.savez(path, meta=np.array(text), **plain)
    return Case(path)


def reduced(name: str, rows: Tensor, step: int = 1) -> Arrays:
    """The forms of a bulky array: three rows, products of every `step`-th, mean and deviation."""
    flat = rows.detach().double()
    r = seeded_normal(f"proj/{name}", (flat.shape[-1],)).double() / math.sqrt(flat.shape[-1])
    chosen = torch.tensor([0, len(flat) // 2, len(flat) - 1])
    return {
        f"{name}__rows": chosen,
        f"{name}__sample": flat[chosen].float(),
        f"{name}__proj": (flat[::step] @ r).float(),
        f"{name}__mean": flat.mean(0).float(),
        f"{name}__std": flat.std(0, unbiased=False).float(),
    }


def refuses(check: Callable[[], Any]) -> None:
    with pytest.raises(AssertionError):
        check()


# --- arrays and rules


@pytest.mark.parametrize("step", [1, 2, 7])
@pytest.mark.parametrize("form", ["whole", "sample", "proj", "mean", "std"])
def test_every_form_is_read_and_a_wrong_number_is_noticed(tmp_path: Path, form: str, step: int) -> None:
    values = seeded_normal("values", (100, 6))
    forms = reduced("out_x", values, step)
    arrays = {"out_x": values} if form == "whole" else {f"out_x__{form}": forms[f"out_x__{form}"]}
    if form == "sample":
        arrays["out_x__rows"] = forms["out_x__rows"]
    case = write(tmp_path / "a.npz", {}, arrays)
    assert assert_rows(case, "out_x", values, 1e-5) == 1
    refuses(lambda: assert_rows(case, "out_x", values * 1.01 + 0.01, 1e-5))
    refuses(lambda: assert_rows(case, "out_x", values.flip(1), 1e-5))


def test_rows_out_of_order_are_noticed_by_thinned_products(tmp_path: Path) -> None:
    values = seeded_normal("values", (100, 6))
    thinned = {"out_x__proj": reduced("out_x", values, 5)["out_x__proj"]}
    case = write(tmp_path / "a.npz", {}, thinned)
    assert assert_rows(case, "out_x", values, 1e-5) == 1
    refuses(lambda: assert_rows(case, "out_x", values.flip(0), 1e-5))


def test_a_form_that_nobody_reads_is_reported(tmp_path: Path) -> None:
    case = write(tmp_path / "a.npz", {}, {"out_x__median": np.zeros(3)})
    with pytest.raises(AssertionError, match="nobody reads out_x__median"):
        assert_rows(case, "out_x", torch.zeros(4, 3), 1e-5)


README = """# Golden numbers
### `a.npz` - something
| array | shape | type | meaning |
|---|---|---|---|
| `in_x` | 5x3 | float32 | not stored: standard_normal(shape) seeded by 'feat', times 0.5 |
### `b.npz` - another
| `in_x` | 9x9 | float32 | not stored: standard_normal(shape) seeded by 'other' |
"""


@pytest.mark.parametrize("how", ["meta dict", "meta text", "arrays", "rule text", "rule json", "readme"])
def test_inputs_by_a_rule_are_the_seeded_numbers(tmp_path: Path, how: str) -> None:
    text = "standard_normal(5, 3) seeded by 'feat', times 0.5"
    rule = {"shape": [5, 3], "seed": "feat", "scale": 0.5}
    arrays: Arrays = {"out_y": np.zeros(1)}
    meta: dict[str, Any] = {}
    match how:
        case "meta dict":
            meta = {"inputs": {"in_x": rule}}
        case "meta text":
            meta = {"rules": {"in_x": text}}
        case "arrays":
            parts = {"shape": np.array([5, 3]), "seed": np.array("feat"), "scale": np.array(0.5)}
            arrays |= {f"in_x__{name}": value for name, value in parts.items()}
        case "rule text":
            arrays["in_x__rule"] = np.array(text)
        case "rule json":
            arrays["in_x__rule"] = np.array(json.dumps(rule))
        case "readme":
            (tmp_path / "README.md").write_text(README)
    made = write(tmp_path / "a.npz", {}, arrays, **meta)
    assert "in_x" in made and "in_x" in made.names
    assert torch.equal(made.tensor("in_x"), seeded_normal("feat", (5, 3)) * np.float32(0.5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("standard_normal(2x3) seeded by 'a'", InputRule((2, 3), "a")),
        ("0.1 * standard_normal((2, 3)) seeded by 'a'", InputRule((2, 3), "a", 0.1)),
        ("standard_normal(2, 3) seeded by 'a' / 4", InputRule((2, 3), "a", 0.25)),
        ("standard_normal(2, 3) seeded by salt + 'a'", InputRule((2, 3), "a", salted=True)),
        ("positions, metres", None),
    ],
)
def test_rules_in_words(text: str, expected: InputRule | None) -> None:
    assert rule_of_text(text, None) == expected


def test_a_stored_input_is_not_replaced_by_a_rule(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README)
    made = write(tmp_path / "a.npz", {}, {"in_x": np.ones((5, 3), np.float32)})
    assert torch.equal(made.tensor("in_x"), torch.ones(5, 3))


# --- networks

PROJECTION = {"type": "UNet3D-v1m2", "in_channels": 8, "out_channels": 6, "f_maps": 8, "num_levels": 2}


def test_a_projection_of_another_size_with_a_ruled_volume(tmp_path: Path) -> None:
    module = build_projection(projection_config(PROJECTION), 8)
    rule = {"in_volume": {"shape": [1, 8, 4, 6, 8], "seed": "volume"}}
    fill_weights(module, write(tmp_path / "w.npz", PROJECTION, weights(module)))
    volume = seeded_normal("volume", (1, 8, 4, 6, 8)).requires_grad_()
    output = module.eval()(volume)
    (output * seeded_normal("cotangent", tuple(output.shape))).sum().div(math.sqrt(output.numel())).backward()
    arrays = weights(module) | reduced("out_eval", test_projection.cells_first(output), 5)
    assert volume.grad is not None
    arrays |= reduced("out_eval_grad_in", test_projection.cells_first(volume.grad))
    check = test_projection.test_volume_and_gradients_equal_the_published_network
    check(write(tmp_path / "a.npz", PROJECTION, arrays, inputs=rule), "eval")
    wrong = arrays | {"out_eval_grad_in__proj": arrays["out_eval_grad_in__proj"] * 1.01}
    refuses(lambda: check(write(tmp_path / "b.npz", PROJECTION, wrong, inputs=rule), "eval"))


BACKBONE = {"type": "SpUNet-v1m1", "in_channels": 4, "num_classes": 0, "base_channels": 4}
BACKBONE |= {"channels": [4, 8, 8, 4], "layers": [1, 1, 1, 1]}


def test_gradients_of_features_may_be_reduced(tmp_path: Path, rng: torch.Generator) -> None:
    module = build_encoder(encoder_config(BACKBONE))
    fill_weights(module, write(tmp_path / "w.npz", BACKBONE, weights(module)))
    cells = torch.unique(torch.randint(0, 12, (300, 3), generator=rng), dim=0)
    feature, offset = seeded_normal("feat", (len(cells), 4)).requires_grad_(), torch.tensor([len(cells)])
    output = module.eval().rows(SparseVoxels(feature, cells, batch_index(offset), 1))
    (output * seeded_normal("cotangent", tuple(output.shape))).sum().div(math.sqrt(output.numel())).backward()
    arrays = weights(module) | {"in_grid_coord": cells, "in_offset": offset, "in_feat": feature}
    assert feature.grad is not None
    arrays |= reduced("out_eval", output, 3) | reduced("out_eval_grad_feat", feature.grad, 2)
    check = test_sparse_unet.test_evaluation_mode_equals_the_published_network
    check(write(tmp_path / "a.npz", BACKBONE, arrays), build_encoder(encoder_config(BACKBONE)))
    wrong = arrays | {"out_eval_grad_feat__sample": arrays["out_eval_grad_feat__sample"].flip(0)}
    path = write(tmp_path / "b.npz", BACKBONE, wrong)
    refuses(lambda: check(path, build_encoder(encoder_config(BACKBONE))))


# --- transforms


@pytest.mark.parametrize("named", ["in the settings", "an array", "not at all"])
def test_voxels_of_another_size(tmp_path: Path, rng: torch.Generator, named: str) -> None:
    """5 cm instead of 2: the size is given, or follows from the indices."""
    coord = torch.rand(500, 3, generator=rng) * torch.tensor([3.0, 2.0, 1.0])
    cells, _ = grid_cells(coord, 0.05)
    order = fnv_hash(cells).numpy().view(np.uint64).argsort(kind="stable")
    groups = group_by_voxel(fnv_hash(cells), torch.from_numpy(order.astype(np.int64)))
    draw = torch.zeros(int(groups.inverse.max()) + 1, dtype=torch.long)
    index = groups.pick(draw)
    arrays = {"in_coord": coord, "in_grid_fnv_sort_order": order, "in_grid_fnv_draw": draw}
    arrays |= {"out_grid_fnv_index": index, "out_grid_fnv_grid_coord": cells[index]}
    config = {"grid_size": 0.05} if named == "in the settings" else None
    arrays |= {"in_grid_size": np.array(0.05)} if named == "an array" else {}
    case = write(tmp_path / "a.npz", config, arrays)
    assert case.kind == "transforms"
    test_transforms.test_voxel_hash_and_selection(case, "fnv")
    test_transforms.test_own_sorting_gives_the_voxels_in_the_stored_order(case, "fnv")
    wrong = write(tmp_path / "b.npz", config, arrays | {"out_grid_fnv_grid_coord": cells[index] + 1})
    refuses(lambda: test_transforms.test_own_sorting_gives_the_voxels_in_the_stored_order(wrong, "fnv"))


# --- renderers

FIELD = {
    "sdf_decoder": {"in_dim": 4, "out_dim": 5, "hidden_size": 8, "n_blocks": 1, "points_factor": 0.0},
    "rgb_decoder": {"in_dim": 14, "out_dim": 3, "hidden_size": 8, "n_blocks": 0, "points_factor": 0.0},
    "beta_init": 0.3, "use_gradient": True, "share_volume": False, "norm_pts": True, "norm_padding": 0.1,
}  # fmt: skip
BOX = {"type": "AABBBoxCollider", "near_plane": 0.01, "bbox": [-0.55, -0.55, -0.55, 0.55, 0.55, 0.55]}
LOSS = {"sensor_depth_truncation": 0.05, "weights": {"rgb_loss": 1.0, "depth_loss": 1.0, "sdf_loss": 1.0}}


def renderer_settings(kind: str, rounds: int, initial: str) -> dict[str, Any]:
    sampler = {
        "type": "NeuSSampler",
        "initial_sampler": initial,
        "num_samples": 12,
        "num_upsample_steps": rounds,
    }
    sampler |= {"num_samples_importance": 4 * rounds, "train_stratified": True, "single_jitter": False}
    return {"type": kind, "field": FIELD, "collider": BOX, "sampler": sampler, "loss": LOSS}


@pytest.mark.parametrize("kind", ["NeuSModel", "VolSDFModel"])
@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("initial", ["UniformSampler", "UniformLinDispPiecewiseSampler"])
def test_renderers_with_other_samplers_rounds_and_numbers(
    tmp_path: Path, kind: str, rounds: int, initial: str
) -> None:
    """The volume comes by a rule, per-sample arrays are reduced, colours are whole."""
    from ponderv2.renderer.renderer import Renderer
    from tests.golden.official_renderer import channels, renderer_config

    config = renderer_settings(kind, rounds, initial)
    module = Renderer(renderer_config(config), *channels(config))
    origins = seeded_normal("o", (9, 3)) * 0.1
    directions = torch.nn.functional.normalize(seeded_normal("d", (9, 3)), dim=1)
    arrays = weights(module) | {
        "in_ray_o": origins,
        "in_ray_d": directions,
        "in_ray_rows": torch.tensor([1, 4]),
    }
    rule = {"in_volume": {"shape": [1, 8, 5, 5, 5], "seed": "volume", "scale": 0.5}}
    setting = test_renderer.setting_of(write(tmp_path / "w.npz", config, arrays, inputs=rule))
    with torch.no_grad():
        output = setting.render("eval")
    found = {"out_eval_rgb": output.color, "out_eval_sdf": output.sdf[[1, 4]]}
    found |= reduced("out_eval_depth", output.distance[:, None], 2) | reduced(
        "out_eval_weights", output.weights, 2
    )
    check = test_renderer.test_pictures_and_samples_are_the_published_ones
    check(test_renderer.setting_of(write(tmp_path / "a.npz", config, arrays | found, inputs=rule)), "eval")
    wrong = found | {"out_eval_sdf": output.sdf[[4, 1]]}
    case = write(tmp_path / "b.npz", config, arrays | wrong, inputs=rule)
    refuses(lambda: check(test_renderer.setting_of(case), "eval"))


# --- the whole model


def pretext_settings() -> dict[str, Any]:
    """Two datasets with rows of their own, and a mask."""
    renderer = renderer_settings("NeuSModel", 1, "UniformSampler")
    field = FIELD | {"semantic_decoder": {"in_dim": 11, "out_dim": 512, "hidden_size": 8, "n_blocks": 0}}
    backbone = BACKBONE | {"type": "SpUNet-v1m3", "conditions": ["A", "B"], "context_channels": 8}
    weights = LOSS["weights"] | {"semantic_loss": 0.1}
    renderer |= {"field": field, "loss": LOSS | {"weights": weights}}
    return {
        "type": "PonderIndoor-v2",
        "backbone": backbone,
        "projection": PROJECTION | {"in_channels": 4, "out_channels": 8},
        "renderer": renderer,
        "mask": {"size": 4, "ratio": 0.5, "channel": 4},
        "grid_shape": [8, 8, 8],
        "grid_size": 0.05,
        "padding": 0.1,
        "conditions": ["A", "B"],
        "context_channels": 8,
        "class_name": ["a", "b", "c", "d"],
        "valid_index": [[0, 1, 2], [3, 1]],
        "render_semantic": True,
        "ppt_loss_weight": 1.0,
    }


def pretext_inputs(rng: torch.Generator) -> Arrays:
    """One scene of points in a box, one view of it."""
    coord = torch.rand(150, 3, generator=rng)
    cells = torch.unique((coord / 0.05).floor().long(), dim=0)
    coord = (cells + 0.5) * 0.05
    pose = torch.eye(4, dtype=torch.float64)[None, None].clone()
    pose[..., 2, 3] = 2.0
    lens = torch.tensor([[8.0, 0, 4], [0, 8.0, 4], [0, 0, 1]], dtype=torch.float64)[None, None]
    n, noise = len(cells), torch.rand(1, 8, 18, generator=rng)
    return {
        "in_coord": coord,
        "in_grid_coord": cells,
        "in_feat": seeded_normal("feat", (n, 4)),
        "in_offset": torch.tensor([n]),
        "in_segment": torch.arange(n) % 2,
        "in_pixel_x": torch.arange(8)[None, None],
        "in_pixel_y": torch.full((1, 1, 8), 4),
        "in_depth": torch.full((1, 1, 8, 8), 2000),
        "in_depth_scale": torch.tensor([0.001]),
        "in_intrinsic": lens.float(),
        "in_extrinsic": pose.float(),
        "in_semantic": torch.ones(1, 1, 8, 8).long(),
        "in_rgb_u8": torch.randint(0, 255, (1, 1, 8, 8, 3), generator=rng, dtype=torch.uint8),
        "in_class_embedding": seeded_normal("classes", (4, 512)),
        "in_rand_uniform": noise[..., :13],
        "in_rand_pdf": noise[..., 13:],
        "in_condition": np.array("B"),
    }


def test_a_model_of_two_datasets_with_a_mask(tmp_path: Path, rng: torch.Generator) -> None:
    """The second dataset: its own embedding and its own rows of classes; hidden voxels in both modes."""
    config, arrays = pretext_settings(), pretext_inputs(rng)
    module = test_ponder_indoor.PretextModel(test_ponder_indoor.pretext_config(config))
    arrays |= weights(module)
    arrays["in_mask"] = torch.arange(len(arrays["in_coord"])) % 3 == 0
    case = write(tmp_path / "w.npz", config, arrays)
    assert test_ponder_indoor.condition_of(case) == "B"
    model, batch = test_ponder_indoor.model_of(case), test_ponder_indoor.batch_of(case)
    assert torch.equal(model.class_rows("B"), arrays["in_class_embedding"][[3, 1]])
    with torch.no_grad():
        hidden = test_ponder_indoor.masked(case, model, batch, "eval")
        encoded = model.eval().build_volume(hidden)
        output = model.renderer(encoded.volume, model.rays(batch, encoded.frame).rays)
    assert torch.equal(
        hidden.feature[arrays["in_mask"]], model.mtoken.expand(int(arrays["in_mask"].sum()), -1)
    )
    found = {"out_eval_rgb": output.color, "out_eval_depth": output.distance[:, None]}
    found |= reduced("out_eval_backbone", encoded.features.feature, 4)
    check = test_ponder_indoor.test_evaluation_is_the_published_one
    case = write(tmp_path / "a.npz", config, arrays | found)
    check(case, test_ponder_indoor.model_of(case), test_ponder_indoor.batch_of(case))
    unmasked = write(
        tmp_path / "b.npz", config, arrays | found | {"in_mask": torch.zeros_like(arrays["in_mask"])}
    )
    refuses(
        lambda: check(unmasked, test_ponder_indoor.model_of(unmasked), test_ponder_indoor.batch_of(unmasked))
    )
    other = write(tmp_path / "c.npz", config, arrays | found | {"in_condition": np.array("A")})
    refuses(lambda: check(other, test_ponder_indoor.model_of(other), test_ponder_indoor.batch_of(other)))
