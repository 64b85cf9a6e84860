"""Augmentations: what must move, what must not, and how often."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ponderv2.data.augment_config import (
    AugmentConfig,
    AutoContrastConfig,
    CentreShiftConfig,
    ColorDropConfig,
    ColorJitterConfig,
    ColorTranslationConfig,
    DropoutConfig,
    ElasticConfig,
    FlipConfig,
    JitterConfig,
    NormalDropConfig,
    RotateConfig,
    ScaleConfig,
    published_pretraining_augmentations,
    published_segmentation_augmentations,
)
from ponderv2.data.augmentation import (
    augment,
    elastic_distortion,
    noise_shape,
    smooth_noise,
    stretch_contrast,
    translate_color,
)
from ponderv2.data.config import PretrainDataConfig, SphereCropConfig
from ponderv2.geometry.cameras import Camera, project
from ponderv2.geometry.transforms import rotation_matrix, transform_points
from ponderv2.scenes.scene import Frame, PointCloud, Scene


@pytest.fixture
def scene(rng: torch.Generator) -> Scene:
    """Points in front of two cameras."""
    coord = torch.rand(400, 3, generator=rng) * torch.tensor([4.0, 3.0, 2.5])
    normal = torch.nn.functional.normalize(torch.randn(400, 3, generator=rng), dim=1)
    color = torch.rand(400, 3, generator=rng) * 255.0
    labels = {"segment": torch.randint(-1, 5, (400,), generator=rng), "row": torch.arange(400)}
    intrinsics = torch.tensor([[50.0, 0, 40], [0, 55, 30], [0, 0, 1]])
    frames = []
    for angle in (0.3, 1.2):
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, 3] = torch.tensor([-2.0, -1.5, 6.0])
        camera = Camera(intrinsics, (pose @ rotation_matrix(angle, "x")).float(), 80, 60)
        frames.append(Frame(str(angle), camera, 0.001, Path("c"), Path("d")))
    return Scene("room", PointCloud(coord, color, normal, labels), tuple(frames))


def pixels(scene: Scene) -> list[Tensor]:
    """Where every camera sees every point, and how far away in metres."""
    found = []
    for frame in scene.frames:
        in_camera = transform_points(frame.camera.world_to_camera, scene.cloud.coord)
        pixel, depth = project(in_camera, frame.camera.intrinsics)
        found.append(torch.cat([pixel, depth[:, None]], dim=1))
    return found


MOTIONS = [
    CentreShiftConfig(),
    CentreShiftConfig(apply_z=False),
    RotateConfig(axis="z", probability=1.0),
    RotateConfig(axis="x", probability=1.0, centre="middle"),
    RotateConfig(axis="y", probability=1.0, centre="middle"),
    ScaleConfig(limits=(0.7, 1.4)),
    FlipConfig(probability=1.0),
]


@pytest.mark.parametrize("motion", MOTIONS, ids=[f"{i}-{motion.kind}" for i, motion in enumerate(MOTIONS)])
def test_moving_a_scene_does_not_change_its_images(scene: Scene, motion, rng: torch.Generator) -> None:
    moved = augment(scene, (motion,), rng)
    assert not torch.allclose(moved.cloud.coord, scene.cloud.coord)
    for after, before in zip(pixels(moved), pixels(scene), strict=True):
        torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-4)


def test_published_pipeline_does_not_change_images(scene: Scene, rng: torch.Generator) -> None:
    for _ in range(5):
        moved = augment(scene, published_pretraining_augmentations(), rng)
        kept = moved.cloud.labels["row"]
        assert len(kept) == int(400 * (1 - 0.8))
        for after, before in zip(pixels(moved), pixels(scene), strict=True):
            torch.testing.assert_close(after, before[kept], atol=1e-3, rtol=1e-4)


def test_normals_stay_unit_and_keep_their_angles(scene: Scene, rng: torch.Generator) -> None:
    moved = augment(scene, published_pretraining_augmentations()[2:], rng)
    torch.testing.assert_close(moved.cloud.normal.norm(dim=1), torch.ones(400))
    expected = scene.cloud.normal @ scene.cloud.normal.T
    torch.testing.assert_close(moved.cloud.normal @ moved.cloud.normal.T, expected, atol=1e-5, rtol=0)


def test_centre_shift_puts_the_floor_at_zero(scene: Scene, rng: torch.Generator) -> None:
    coord = augment(scene, (CentreShiftConfig(),), rng).cloud.coord
    lower, upper = coord.amin(dim=0), coord.amax(dim=0)
    torch.testing.assert_close((lower + upper)[:2], torch.zeros(2), atol=1e-5, rtol=0)
    assert float(lower[2]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("axis", "source", "target"), [("z", 0, 1), ("x", 1, 2), ("y", 2, 0)])
def test_quarter_turns_are_right_handed(axis, source: int, target: int) -> None:
    turned = rotation_matrix(math.pi / 2, axis)[:3, :3] @ torch.eye(3, dtype=torch.float64)[source]
    torch.testing.assert_close(turned, torch.eye(3, dtype=torch.float64)[target])


def test_scale_is_recorded(scene: Scene, rng: torch.Generator) -> None:
    moved = augment(scene, (ScaleConfig(limits=(1.5, 1.5)), ScaleConfig(limits=(0.5, 0.5))), rng)
    assert moved.units_per_metre == pytest.approx(0.75)


def test_dropout_takes_all_fields_of_a_point_together(scene: Scene, rng: torch.Generator) -> None:
    cloud = augment(scene, (DropoutConfig(ratio=0.75, probability=1.0),), rng).cloud
    row = cloud.labels["row"]
    assert len(cloud) == 100 and len(torch.unique(row)) == 100
    assert torch.equal(cloud.coord, scene.cloud.coord[row])
    assert torch.equal(cloud.color, scene.cloud.color[row])
    assert torch.equal(cloud.normal, scene.cloud.normal[row])
    assert torch.equal(cloud.labels["segment"], scene.cloud.labels["segment"][row])


def test_dropout_keeps_the_label_budget(scene: Scene, rng: torch.Generator) -> None:
    labelled = torch.zeros(400, dtype=torch.long)
    labelled[[3, 77, 399]] = 1
    labels = {**scene.cloud.labels, "labelled": labelled}
    few = replace(scene, cloud=replace(scene.cloud, labels=labels))
    for _ in range(10):
        kept = augment(few, (DropoutConfig(ratio=0.99, probability=1.0),), rng).cloud
        assert set(kept.labels["row"][kept.labels["labelled"] > 0].tolist()) == {3, 77, 399}


def test_dropout_leaves_a_point(scene: Scene, rng: torch.Generator) -> None:
    tiny = replace(scene, cloud=scene.cloud.take(torch.arange(2)))
    assert len(augment(tiny, (DropoutConfig(ratio=0.99, probability=1.0),), rng).cloud) == 1


def test_jitter_is_clipped_and_has_the_stated_spread(scene: Scene, rng: torch.Generator) -> None:
    moved = augment(scene, (JitterConfig(sigma=0.01, clip=0.02),), rng).cloud.coord - scene.cloud.coord
    assert float(moved.abs().max()) <= 0.02 + 1e-6
    assert float(moved.std()) == pytest.approx(0.0094, rel=0.1)


@pytest.mark.parametrize(
    "step",
    [
        RotateConfig(probability=0.3),
        DropoutConfig(probability=0.3),
        AutoContrastConfig(probability=0.3),
        ColorTranslationConfig(probability=0.3),
        ColorJitterConfig(probability=0.3),
        ColorDropConfig(probability=0.3),
        NormalDropConfig(probability=0.3),
        ElasticConfig(probability=0.3, rounds=((1.0, 0.5),)),
    ],
    ids=lambda step: step.kind,
)
def test_probability_is_kept(scene: Scene, step, rng: torch.Generator) -> None:
    """300 draws: three standard deviations are 0.08."""
    small = replace(scene, cloud=scene.cloud.take(torch.arange(20)), frames=())
    changed = 0
    for _ in range(300):
        after = augment(small, (step,), rng).cloud
        same = len(after) == 20 and torch.equal(after.coord, small.cloud.coord)
        same = same and torch.equal(after.normal, small.cloud.normal)
        changed += not (same and torch.equal(after.color, small.cloud.color))
    assert changed / 300 == pytest.approx(0.3, abs=0.08)


def test_stretched_contrast_spans_everything(scene: Scene) -> None:
    color = scene.cloud.color * 0.3 + 40.0
    stretched = stretch_contrast(color, 1.0)
    torch.testing.assert_close(stretched.amin(dim=0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(stretched.amax(dim=0), torch.full((3,), 255.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(stretch_contrast(color, 0.5), (stretched + color) / 2)


def test_constant_channel_survives_the_contrast(scene: Scene) -> None:
    color = scene.cloud.color.clone()
    color[:, 1] = 17.0
    stretched = stretch_contrast(color, 1.0)
    assert torch.isfinite(stretched).all() and (stretched[:, 1] == 17.0).all()


def test_translated_colors_are_clipped(scene: Scene) -> None:
    moved = translate_color(scene.cloud.color, torch.tensor([300.0, -300.0, 0.0]))
    assert (moved[:, 0] == 255).all() and (moved[:, 1] == 0).all()
    assert torch.equal(moved[:, 2], scene.cloud.color[:, 2])


def test_colors_of_single_points_are_dropped(scene: Scene, rng: torch.Generator) -> None:
    color = augment(scene, (ColorDropConfig(probability=0.0, point_probability=0.25),), rng).cloud.color
    hidden = (color == 127.5).all(dim=1)
    assert float(hidden.float().mean()) == pytest.approx(0.25, abs=0.07)
    assert torch.equal(color[~hidden], scene.cloud.color[~hidden])


def test_hidden_normals_are_zero_and_stay_so_when_the_scene_turns(scene: Scene, rng: torch.Generator) -> None:
    turn = RotateConfig(probability=1.0)
    some = augment(scene, (NormalDropConfig(probability=0.0, point_probability=0.25), turn), rng).cloud.normal
    hidden = (some == 0).all(dim=1)
    assert float(hidden.float().mean()) == pytest.approx(0.25, abs=0.07)
    torch.testing.assert_close(some[~hidden].norm(dim=1), torch.ones(int((~hidden).sum())))
    every = augment(scene, (NormalDropConfig(probability=1.0), turn), rng).cloud
    assert (every.normal == 0).all() and torch.equal(every.color, scene.cloud.color)
    bare = replace(scene, cloud=replace(scene.cloud, normal=None))
    assert augment(bare, (NormalDropConfig(probability=1.0),), rng).cloud.normal is None


def test_same_generator_gives_the_same_scene(scene: Scene) -> None:
    steps = published_segmentation_augmentations()
    first, second = (augment(scene, steps, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.cloud.coord, second.cloud.coord)
    assert torch.equal(first.cloud.color, second.cloud.color)


def test_global_generator_is_not_read(scene: Scene, rng: torch.Generator) -> None:
    before = torch.random.get_rng_state()
    augment(scene, published_segmentation_augmentations(), rng)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_published_lists_have_the_published_order() -> None:
    pretraining = [step.kind for step in published_pretraining_augmentations()]
    assert pretraining == ["centre_shift", "dropout", "rotate", "rotate", "rotate", "scale", "flip"]
    segmentation = [step.kind for step in published_segmentation_augmentations()]
    colors = ["auto_contrast", "color_translation", "color_jitter"]
    assert segmentation == [*pretraining, "jitter", "elastic", *colors]


def test_kind_chooses_the_settings() -> None:
    step = TypeAdapter(AugmentConfig).validate_python({"kind": "scale", "limits": [0.5, 2.0]})
    assert step == ScaleConfig(limits=(0.5, 2.0))
    with pytest.raises(ValidationError):
        TypeAdapter(AugmentConfig).validate_python({"kind": "scale", "limit": [0.5, 2.0]})


def test_elastic_distortion_is_refused_for_pretraining() -> None:
    with pytest.raises(ValidationError, match="away from the images"):
        PretrainDataConfig(augment=(ElasticConfig(),))


def test_sphere_crop_takes_one_rule() -> None:
    assert SphereCropConfig(n_points=None, share=0.6).share == 0.6
    with pytest.raises(ValidationError):
        SphereCropConfig(n_points=10, share=0.6)


def blurred_by_loop(noise: Tensor) -> Tensor:
    """Mean of three neighbours, zeros outside, x then y then z, twice."""
    value = noise.double()
    for _ in range(2):
        for axis in (1, 2, 3):
            result = torch.zeros_like(value)
            for index in itertools.product(*(range(n) for n in value.shape)):
                for away in (-1, 0, 1):
                    other = list(index)
                    other[axis] += away
                    if 0 <= other[axis] < value.shape[axis]:
                        result[index] += value[tuple(other)] / 3.0
            value = result
    return value


def looked_up_by_loop(coord: Tensor, grid: Tensor, cell: float) -> Tensor:
    """Linear in x, y and z between nodes at lowest - cell + i cell."""
    start = coord.double().amin(dim=0) - cell
    result = torch.zeros(len(coord), 3, dtype=torch.float64)
    for n, point in enumerate(coord.double()):
        position = (point - start) / cell
        low = position.floor().long()
        for corner in itertools.product((0, 1), repeat=3):
            node = low + torch.tensor(corner)
            if any(not 0 <= int(node[a]) < grid.shape[a + 1] for a in range(3)):
                continue
            weight = 1.0
            for a in range(3):
                part = float(position[a] - low[a])
                weight *= part if corner[a] else 1.0 - part
            result[n] += weight * grid[:, node[0], node[1], node[2]]
    return result


def test_smoothing_matches_the_loop(rng: torch.Generator) -> None:
    noise = torch.randn(3, 4, 5, 3, generator=rng)
    torch.testing.assert_close(smooth_noise(noise).double(), blurred_by_loop(noise), atol=1e-6, rtol=1e-5)


def test_distortion_matches_the_loop(rng: torch.Generator) -> None:
    coord = torch.rand(25, 3, generator=rng) * torch.tensor([1.3, 0.9, 0.5]) - 0.4
    cell, magnitude = 0.3, 0.7
    noise = torch.randn((3, *noise_shape(coord, cell)), generator=rng)
    moved = elastic_distortion(coord, noise, cell, magnitude)
    expected = coord + magnitude * looked_up_by_loop(coord, blurred_by_loop(noise), cell)
    torch.testing.assert_close(moved.double(), expected, atol=1e-5, rtol=0)


def test_noise_grid_reaches_beyond_every_point(rng: torch.Generator) -> None:
    """extent // cell + 3 nodes, the first one cell before the lowest point."""
    coord = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.59, 0.61]])
    assert noise_shape(coord, 0.2) == (7, 5, 6) or noise_shape(coord, 0.2) == (8, 5, 6)
    assert noise_shape(coord, 0.8) == (4, 3, 3)


def test_shape_stays_smooth(rng: torch.Generator) -> None:
    """Neighbours move together: far less against each other than as such."""
    start = torch.rand(200, 3, generator=rng) * 3.0
    coord = torch.cat([start, start + 0.01])
    noise = torch.randn((3, *noise_shape(coord, 0.8)), generator=rng)
    moved = elastic_distortion(coord, noise, 0.8, 1.6) - coord
    against = (moved[:200] - moved[200:]).norm(dim=1).mean()
    assert float(against) < 0.05 * float(moved.norm(dim=1).mean())


def test_no_noise_moves_nothing() -> None:
    coord = torch.rand(10, 3)
    still = elastic_distortion(coord, torch.zeros(3, *noise_shape(coord, 0.2)), 0.2, 0.4)
    assert torch.equal(still, coord)


def test_single_point_is_accepted(rng: torch.Generator) -> None:
    coord = torch.tensor([[1.0, 2.0, 3.0]])
    noise = torch.randn((3, *noise_shape(coord, 0.2)), generator=rng)
    assert noise.shape == (3, 3, 3, 3)
    moved = elastic_distortion(coord, noise, 0.2, 0.4)
    # The only point lies on the middle node.
    torch.testing.assert_close(moved[0], coord[0] + 0.4 * smooth_noise(noise)[:, 1, 1, 1])
