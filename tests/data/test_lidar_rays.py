"""Rays to the points of a LiDAR, against loops in double precision over drives whose poses are known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ponderv2.data.augment_config import FlipConfig, RotateConfig, ScaleConfig, ShiftConfig
from ponderv2.data.augmentation import augment
from ponderv2.data.config import (
    ImageAugmentConfig,
    ImageInputConfig,
    LidarRaysConfig,
    PointRangeConfig,
    PretrainDataConfig,
    SweepsConfig,
    ViewSamplingConfig,
    VoxelConfig,
)
from ponderv2.data.lidar_rays import LidarPixels, sample_lidar_rays, seen_points
from ponderv2.data.preprocess import in_range
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.data.views import decode_color, image_batch
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import project
from ponderv2.geometry.rays import rays_through_pixels
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.scene import Frame, PointCloud, Scene
from tests.datasets.drives.nuscenes_drives import (
    CAMERAS,
    INTRINSICS,
    SIZE,
    START,
    ego_pose,
    sensor_pose,
    write_drives,
)

EVERY = LidarRaysConfig(closest=0.0, occlusion="none")
UPRIGHT = (
    RotateConfig(axis="z", probability=1.0),
    ScaleConfig(limits=(0.9, 1.1)),
    ShiftConfig(sigma=0.5),
    FlipConfig(),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SceneFolders:
    root = write_drives(tmp_path_factory.mktemp("nuscenes"), ("scene-0061",), n_samples=3).root
    return open_folder(root)


@pytest.fixture(scope="module")
def scene(folder: SceneFolders) -> Scene:
    return folder.read(folder.names("train")[1], "train")


def by_hand(scene: Scene, channel: str, sample: int) -> list[tuple[int, float, float, float]]:
    """Number, column, row, depth of each point: scan to vehicle to world at the time of the scan, world to
    vehicle to camera at the time of the image."""
    scan_time = START + 500_000 * sample
    image_time = scan_time + round(1e6 * CAMERAS[channel])
    to_world = ego_pose(scan_time) @ sensor_pose("LIDAR_TOP")
    to_camera = np.linalg.inv(ego_pose(image_time) @ sensor_pose(channel))
    found = []
    for number, point in enumerate(scene.cloud.coord.double().numpy()):
        x, y, z, _ = to_camera @ to_world @ np.append(point, 1.0)
        if z <= 1e-5:
            continue
        u = INTRINSICS[0][0] * x / z + INTRINSICS[0][2]
        v = INTRINSICS[1][1] * y / z + INTRINSICS[1][2]
        if 0 < u < SIZE[0] - 1 and 0 < v < SIZE[1] - 1:
            found.append((number, u, v, z))
    return found


@pytest.mark.parametrize("channel", CAMERAS)
def test_points_are_seen_through_both_poses_of_the_vehicle(scene: Scene, channel: str) -> None:
    camera = next(one for one in scene.frames if one.sensor == channel).camera
    expected = by_hand(scene, channel, 1)
    found = seen_points(scene, camera, EVERY)
    assert found.point.tolist() == [number for number, *_ in expected] and len(expected) > 10
    np.testing.assert_allclose(found.pixel, [(u, v) for _, u, v, _ in expected], atol=2e-3)
    np.testing.assert_allclose(found.depth, [z for *_, z in expected], atol=2e-4)


def test_points_close_to_the_sensor_or_far_from_it_are_left_out(scene: Scene) -> None:
    camera = scene.frames[0].camera
    found = seen_points(scene, camera, EVERY.model_copy(update={"closest": 8.0, "farthest": 15.0}))
    planar = scene.cloud.coord[:, :2].norm(dim=1)
    every = seen_points(scene, camera, EVERY).point
    expected = [one for one in every.tolist() if 8.0 < planar[one] < 15.0]
    assert found.point.tolist() == expected and 0 < len(expected) < len(every)
    # the sensor moves with the scene
    moved = scene.moved(torch.tensor([[0.0, -1, 0, 9], [1, 0, 0, -7], [0, 0, 1, 2], [0, 0, 0, 1]]))
    config = EVERY.model_copy(update={"closest": 8.0, "farthest": 15.0})
    assert torch.equal(seen_points(moved, moved.frames[0].camera, config).point, found.point)


@pytest.mark.parametrize("cell", [1, 5])
def test_of_the_points_of_a_cell_of_pixels_the_nearest_remains(scene: Scene, cell: int) -> None:
    camera = scene.frames[0].camera
    dense = replace(scene, cloud=PointCloud(_between(scene.cloud.coord)))
    best: dict[tuple[int, int], tuple[float, int]] = {}
    every = seen_points(dense, camera, EVERY)
    for (u, v), depth, number in zip(
        every.pixel.tolist(), every.depth.tolist(), every.point.tolist(), strict=True
    ):
        key = int(u) // cell, int(v) // cell
        if key not in best or depth < best[key][0]:
            best[key] = depth, number
    config = EVERY.model_copy(update={"occlusion": "nearest", "cell": cell})
    found = seen_points(dense, camera, config)
    assert found.point.tolist() == sorted(number for _, number in best.values())
    assert len(found) < len(every)


def _between(coord: torch.Tensor) -> torch.Tensor:
    """Many more points, some of them behind others."""
    return torch.cat([coord * factor for factor in (1.0, 1.25, 1.5, 1.75)])


def test_rays_have_the_colour_of_their_pixel_and_the_class_of_their_point(
    scene: Scene, tmp_path: Path
) -> None:
    image = np.stack([*np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), np.zeros(SIZE[::-1])], axis=2)
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "image.png")
    frames = tuple(replace(one, color_path=tmp_path / "image.png") for one in scene.frames)
    for rounding, round_down in ((np.round, False), (np.floor, True)):
        config = ViewSamplingConfig(
            n_views=6, n_pixels=20, lidar=EVERY.model_copy(update={"round_down": round_down})
        )
        generator = torch.Generator().manual_seed(3)
        sampled = sample_lidar_rays(scene, frames, config, Frame.read_color, generator, "segment")
        assert len(sampled.frames) == 2  # each camera once, although six are asked for
        pixels = sampled.pixels
        assert torch.bincount(pixels.view).tolist() == [20, 20] and bool(pixels.colored.all())
        place = rounding(pixels.pixel.numpy())
        np.testing.assert_allclose(255.0 * pixels.color[:, :2].numpy(), place, atol=1e-3)
        for view, frame in enumerate(sampled.frames):
            rays = pixels.view == view
            seen = seen_points(scene, frame.camera, EVERY.model_copy(update={"round_down": round_down}))
            index = [_index(seen, one) for one in pixels.pixel[rays]]
            assert len(set(index)) == 20  # without replacement
            expected = scene.cloud.labels["segment"][seen.point[index]]
            assert torch.equal(pixels.label[rays], expected.long())


def _index(seen: LidarPixels, pixel: torch.Tensor) -> int:
    return int((seen.pixel - pixel).abs().sum(dim=1).argmin())


def test_missing_points_are_replaced_by_colours_below_the_sky(scene: Scene) -> None:
    n_seen = {one.sensor: len(seen_points(scene, one.camera, EVERY)) for one in scene.frames}
    config = ViewSamplingConfig(n_pixels=500, lidar=EVERY.model_copy(update={"top_up": True}))
    generator = torch.Generator().manual_seed(0)
    sampled = sample_lidar_rays(scene, scene.frames, config, Frame.read_color, generator)
    n_grid = len(range(16, SIZE[1], 4)) * len(range(0, SIZE[0], 4))  # row 14.4 is where 40 % end
    for view, frame in enumerate(sampled.frames):
        rays = sampled.pixels.view == view
        depth, pixel = sampled.pixels.depth[rays], sampled.pixels.pixel[rays]
        assert int((depth > 0).sum()) == n_seen[frame.sensor] and len(depth) == n_seen[frame.sensor] + n_grid
        added = pixel[depth == 0]
        assert bool((added % 4 == 0).all()) and float(added[:, 1].min()) >= 0.4 * SIZE[1]
        assert len(torch.unique(added, dim=0)) == n_grid
    without = config.model_copy(update={"lidar": EVERY})
    generator = torch.Generator().manual_seed(0)
    fewer = sample_lidar_rays(scene, scene.frames, without, Frame.read_color, generator)
    assert len(fewer.pixels.depth) == sum(n_seen.values())


def test_a_camera_that_sees_nothing_is_left_out_and_a_scene_without_any_is_refused(scene: Scene) -> None:
    away = replace(scene.frames[0], camera=scene.frames[0].camera.moved(_far()))
    config = ViewSamplingConfig(lidar=EVERY)
    generator = torch.Generator().manual_seed(0)
    sampled = sample_lidar_rays(scene, (away, scene.frames[1]), config, Frame.read_color, generator)
    assert [one.id for one in sampled.frames] == [scene.frames[1].id]
    with pytest.raises(SceneError, match="sees a point of its LiDAR"):
        sample_lidar_rays(scene, (away,), config, Frame.read_color, generator)


def _far() -> torch.Tensor:
    matrix = torch.eye(4)
    matrix[2, 3] = 500.0
    return matrix


def settings(**rest: object) -> PretrainDataConfig:
    lidar = EVERY.model_copy(update=rest.pop("lidar", {}))
    return PretrainDataConfig.model_validate(
        {
            "voxel": VoxelConfig(size=0.1),
            "features": ("coord",),
            "fields": ("intensity",),
            "centred": False,
            "augment": (),
            "views": ViewSamplingConfig(n_views=6, n_pixels=64, lidar=lidar),
            **rest,
        }
    )


def ends(batch: Batch) -> torch.Tensor:
    """Where the rays of a batch of one scene end."""
    pixels = batch.pixels
    assert pixels is not None
    through = rays_through_pixels(
        pixels.pixel, pixels.view, pixels.intrinsics, pixels.world_to_camera, pixels.view_scene
    )
    return (
        through.rays.origins + through.rays.directions * (pixels.depth * through.distance_per_depth)[:, None]
    )


def nearest(points: torch.Tensor, cloud: torch.Tensor) -> torch.Tensor:
    return torch.cdist(points.double(), cloud.double()).amin(dim=1)


@pytest.mark.parametrize("points", ["scan", "voxels"])
@pytest.mark.parametrize("augment", [(), UPRIGHT], ids=["still", "moved"])
def test_rays_end_at_the_points_that_the_encoder_gets(
    folder: SceneFolders, augment: Iterable[object], points: str
) -> None:
    config = settings(augment=tuple(augment), lidar={"points": points}, voxel=VoxelConfig(size=0.001))
    data = PretrainDataset(folder, "train", config, seed=5, with_labels=True)
    for draw in range(4):
        batch = data.sample(1, draw)
        assert batch.pixels is not None and len(batch.pixels.depth) > 50
        assert float(nearest(ends(batch), batch.coord).max()) < 5e-3


def test_rays_to_voxels_end_at_one_point_of_each(folder: SceneFolders) -> None:
    config = settings(lidar={"points": "voxels"}, voxel=VoxelConfig(size=4.0))
    batch = PretrainDataset(folder, "train", config).sample(1, 0)
    assert batch.pixels is not None
    assert float(nearest(ends(batch), batch.coord).max()) < 5e-3
    assert len(batch.coord) < 150


def test_the_frame_of_the_lidar_stays_and_points_outside_the_range_go(folder: SceneFolders) -> None:
    scene = folder.read(folder.names("train")[1], "train")
    limits = PointRangeConfig(lower=(-9.0, -12.0, -3.0), upper=(14.0, 10.0, 3.0))
    batch = PretrainDataset(folder, "train", settings(range=limits, voxel=VoxelConfig(size=0.001))).sample(
        1, 0
    )
    coord = scene.cloud.coord
    inside = ((coord > torch.tensor(limits.lower)) & (coord < torch.tensor(limits.upper))).all(dim=1)
    assert 20 < int(inside.sum()) < len(coord)
    assert torch.equal(batch.coord.sort(dim=0).values, coord[inside].sort(dim=0).values)
    assert float(nearest(ends(batch), coord[inside]).max()) < 5e-3
    nowhere = PointRangeConfig(lower=(500.0, 0.0, 0.0), upper=(501.0, 1.0, 1.0))
    with pytest.raises(SceneError, match="in the range"):
        PretrainDataset(folder, "train", settings(range=nowhere)).sample(1, 0)


def test_boxes_whose_centre_is_outside_the_range_go_with_its_points(scene: Scene) -> None:
    boxes = scene.boxes
    assert boxes is not None and len(boxes) > 1
    nearer = boxes.center.norm(dim=1).argsort()
    half = float(boxes.center[nearer[:2]].norm(dim=1).mean())
    limits = PointRangeConfig(lower=(-half, -half, -9.0), upper=(half, half, 9.0))
    kept = in_range(scene, settings(range=limits)).boxes
    assert kept is not None
    expected = (boxes.center.abs() < torch.tensor([half, half, 9.0])).all(dim=1)
    assert 0 < int(expected.sum()) < len(boxes)
    assert torch.equal(kept.center, boxes.center[expected])
    assert torch.equal(kept.fields["n_lidar"], boxes.fields["n_lidar"][expected])
    assert in_range(scene, settings()).boxes is boxes


TURNED = (*UPRIGHT[:3], FlipConfig(probability=1.0), RotateConfig(axis="x", probability=1.0))


@pytest.mark.parametrize("mirrored", [False, True], ids=["image as it is", "image mirrored"])
@pytest.mark.parametrize("steps", [UPRIGHT, TURNED], ids=["upright", "mirrored and turned over"])
def test_a_point_stays_in_its_pixel_of_the_input_image_however_the_scene_is_moved(
    scene: Scene, steps: tuple, mirrored: bool
) -> None:
    """Of an image of twice the size, whose pixel (u, v) is (2 u + 0.5, 2 v + 0.5), mirrored or not."""
    width, height = 2 * SIZE[0], 2 * SIZE[1]
    flip = ImageAugmentConfig(flip=float(mirrored))
    config = ImageInputConfig(n_views=2, width=width, height=height, augment=flip)
    generator = torch.Generator().manual_seed(2)
    moved = augment(replace(scene, boxes=None), steps, generator)
    assert float((moved.cloud.coord - scene.cloud.coord).norm(dim=1).min()) > 0.01
    images = image_batch(moved.frames, config, decode_color, generator)
    assert images is not None
    for number, frame in enumerate(scene.frames):
        before = transform_points(frame.camera.world_to_camera.double(), scene.cloud.coord.double())
        after = transform_points(images.world_to_camera[number].double(), moved.cloud.coord.double())
        pixel, depth = project(before, frame.camera.intrinsics.double())
        found, found_depth = project(after, images.intrinsics[number].double())
        front = depth > 1.0
        expected = 2.0 * pixel + 0.5
        if mirrored:
            expected[:, 0] = width - 1 - expected[:, 0]
        assert int(front.sum()) > 20
        torch.testing.assert_close(found[front], expected[front], atol=0.05, rtol=1e-4)
        torch.testing.assert_close(found_depth[front], depth[front], atol=1e-3, rtol=1e-4)


def test_sweeps_are_input_but_rays_end_at_points_of_the_scan(folder: SceneFolders) -> None:
    scene = folder.read(folder.names("train")[1], "train")
    for points in ("scan", "voxels"):
        config = settings(
            sweeps=SweepsConfig(n_sweeps=4, close=0.0),
            fields=("intensity", "time"),
            lidar={"points": points},
            voxel=VoxelConfig(size=0.001),
        )
        batch = PretrainDataset(folder, "train", config).sample(1, 0)
        assert batch.feature.shape[1] == 5
        ages = torch.unique(batch.feature[:, 4])
        torch.testing.assert_close(ages, torch.tensor([0.0, 0.05, 0.1, 0.15]), atol=1e-5, rtol=0)
        assert float(nearest(ends(batch), scene.cloud.coord).max()) < 5e-3


def test_without_colours_no_image_is_opened(folder: SceneFolders, tmp_path: Path) -> None:
    class Blind(PretrainDataset):
        def _read(self, name: str) -> Scene:
            read = super()._read(name)
            nothing = tuple(replace(one, color_path=tmp_path / "missing.jpg") for one in read.frames)
            return replace(read, frames=nothing)

    batch = Blind(folder, "train", settings(lidar={"color": False})).sample(1, 0)
    assert batch.pixels is not None and not bool(batch.pixels.colored.any())
    with pytest.raises(SceneError):
        Blind(folder, "train", settings()).sample(1, 0)


def test_points_behind_a_mask_are_neither_trained_on_nor_validated(
    folder: SceneFolders, tmp_path: Path
) -> None:
    shown = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    shown[:, : SIZE[0] // 2] = 255
    Image.fromarray(shown).save(tmp_path / "mask.png")

    class Masked(PretrainDataset):
        def _read(self, name: str) -> Scene:
            read = super()._read(name)
            return replace(
                read, frames=tuple(replace(one, mask_path=tmp_path / "mask.png") for one in read.frames)
            )

    data, whole = Masked(folder, "train", settings()), PretrainDataset(folder, "train", settings())
    pixels, hits, every = data.sample(1, 0).pixels, data.validation(1).hits, whole.validation(1).hits
    assert pixels is not None and hits is not None and every is not None
    assert float(pixels.pixel[:, 0].max()) < SIZE[0] / 2
    for some, all_of_them in zip(hits, every, strict=True):
        left = all_of_them.pixel[:, 0].round() < SIZE[0] // 2
        assert 0 < len(some) < len(all_of_them) and torch.equal(some.pixel, all_of_them.pixel[left])


def test_a_camera_that_is_held_out_is_only_validated(folder: SceneFolders) -> None:
    data = PretrainDataset(folder, "train", settings(held_out_sensors=("CAM_BACK",)))
    batch = data.sample(1, 0)
    assert batch.pixels is not None and len(batch.pixels.view_scene) == 1
    validation = data.validation(1)
    assert [one.sensor for one in validation.frames] == ["CAM_BACK"]
    assert validation.hits is not None and len(validation.hits[0]) > 10


def test_the_image_of_a_held_out_camera_is_seen_where_settings_say_so_and_its_depth_is_not(
    folder: SceneFolders,
) -> None:
    images = {"n_views": 2, "width": 32, "height": 24, "depth": True, "held_out": True}
    held_out = {"held_out_sensors": ("CAM_BACK",)}
    batch = PretrainDataset(folder, "train", settings(images=images, **held_out)).sample(1, 0)
    every = PretrainDataset(folder, "train", settings(images=images)).sample(1, 0)
    assert batch.pixels is not None and len(batch.pixels.view_scene) == 1
    assert batch.images is not None and batch.images.depth is not None
    assert every.images is not None and every.images.depth is not None
    assert torch.equal(batch.images.image, every.images.image)
    known = batch.images.depth.flatten(1).any(dim=1)
    assert known.sum() == 1 and every.images.depth.flatten(1).any(dim=1).all()
    assert torch.equal(batch.images.depth[known], every.images.depth[known])
    alone = PretrainDataset(folder, "train", settings(images={**images, "held_out": False}, **held_out))
    one = alone.sample(1, 0).images
    assert one is not None and torch.equal(one.image[0], one.image[1])  # the same one twice


def test_crops_that_need_depth_images_are_refused() -> None:
    with pytest.raises(ValueError, match="crop goes by depth images"):
        settings(crop={})


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"lidar": {}, "max_depth": 5.0}, "max_depth goes by depth images"),
        ({"lidar": {}, "min_valid_pixels": 2}, "min_valid_pixels goes by depth images"),
        ({"lidar": {"top_up": True, "color": False}}, "top_up adds pixels with a colour alone"),
        ({"lidar": {"occlusion": "none", "cell": 2}}, "cell is where occlusion takes the nearest"),
    ],
)
def test_settings_without_effect_on_rays_to_points_are_refused(views: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewSamplingConfig.model_validate(views)


def test_the_cameras_of_a_real_key_frame_see_the_points_that_an_independent_chain_gives(
    request: pytest.FixtureRequest,
) -> None:
    root = request.config.getoption("--sample-data") / "nuscenes"
    if not root.is_dir():
        pytest.skip(f"no {root}; choose a folder with --sample-data")
    folder = open_folder(root)
    read = folder.read(folder.names("train")[0], "train")
    for farthest, expected in (
        (None, [3056, 3076, 3700, 4822, 4091, 3370]),
        (50.0, [2986, 2938, 3700, 4274, 4069, 3007]),
    ):
        config = LidarRaysConfig(occlusion="none", farthest=farthest)
        assert [len(seen_points(read, one.camera, config)) for one in read.frames] == expected
