"""Datasets: what a sample promises."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ponderv2.data.augment_config import ColorDropConfig, published_pretraining_augmentations
from ponderv2.data.config import (
    LabelBudgetConfig,
    LabelledDataConfig,
    LocalCropConfig,
    PretrainDataConfig,
    SphereCropConfig,
    ViewSamplingConfig,
    VoxelConfig,
)
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.datasets.scannet import scannet20
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import unproject
from ponderv2.geometry.transforms import transform_points
from ponderv2.geometry.voxels import batch_index
from ponderv2.scenes.batch import Batch, PixelBatch
from ponderv2.store.store import SceneStore
from tests.scenes.closed_form_room import SIZE, room_frames, write_store

VIEWS = ViewSamplingConfig(n_views=3, n_pixels=40)
VOXEL = VoxelConfig(size=0.1)
PRETRAIN = PretrainDataConfig(views=VIEWS, voxel=VOXEL)
SEGMENT = LabelledDataConfig(voxel=VOXEL)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SceneStore:
    return write_store(tmp_path_factory.mktemp("boxes"))


def assert_equal(first: object, second: object) -> None:
    """Bit by bit, through nested dataclasses."""
    if is_dataclass(first):
        for field in fields(first):
            assert_equal(getattr(first, field.name), getattr(second, field.name))
    elif isinstance(first, Tensor):
        assert isinstance(second, Tensor) and torch.equal(first, second)
    else:
        assert first == second


def surface_of_pixels(batch: Batch, pixels: PixelBatch) -> Tensor:
    """Where the pixels' surfaces are in the frame of the points: depth in metres, cameras of the batch."""
    in_camera = unproject(pixels.pixel, pixels.depth, pixels.intrinsics[pixels.view])
    return transform_points(torch.linalg.inv(pixels.world_to_camera)[pixels.view], in_camera)


def test_pixels_lie_on_the_augmented_points(store: SceneStore) -> None:
    """Rotation, scale, mirror and shifts of the published pipeline keep images and points together."""
    dataset = PretrainDataset(store, "train", PRETRAIN.model_copy(update={"voxel": VoxelConfig(size=0.02)}))
    for draw in range(4):
        batch = dataset.sample(draw % 3, draw)
        assert batch.pixels is not None
        surface = surface_of_pixels(batch, batch.pixels)
        nearest = torch.cdist(surface, batch.coord).amin(dim=1)
        # 800 points on 59 square metres lie about 0.14 m from any point of the walls.
        assert nearest.median() < 0.2 and nearest.max() < 0.8
        lower, upper = batch.coord.amin(dim=0), batch.coord.amax(dim=0)
        assert (surface > lower - 0.15).all() and (surface < upper + 0.15).all()


def test_pixel_colors_are_those_of_their_place(store: SceneStore) -> None:
    """Without augmentation a pixel shows the colour that its unprojected position has."""
    config = PRETRAIN.model_copy(update={"augment": ()})
    batch = PretrainDataset(store, "train", config, with_labels=True).sample(0, 0)
    assert batch.pixels is not None
    scene = PretrainDataset(store, "train", config).scene(0)
    shift = (scene.cloud.coord.amin(dim=0) + scene.cloud.coord.amax(dim=0)) / 2
    position = surface_of_pixels(batch, batch.pixels) + torch.tensor([shift[0], shift[1], 0.0])
    expected = position / torch.tensor(SIZE, dtype=torch.float32)
    # Images are stored as JPEG, and the room is centred by its voxels.
    assert (batch.pixels.color - expected).abs().mean() < 0.05
    height = position[:, 2]
    assert (height[batch.pixels.label == 1].abs() < 0.005).all()
    assert (height[batch.pixels.label == 0] > -0.005).all() and (batch.pixels.label == 1).any()


def test_sample_has_the_promised_shapes(store: SceneStore) -> None:
    batch = PretrainDataset(store, "train", PRETRAIN).sample(1, 0)
    assert batch.feature.shape == (len(batch.coord), PRETRAIN.n_channels) == (len(batch.coord), 6)
    assert batch.offset.tolist() == [len(batch.coord)] and batch.condition == "boxes"
    assert len(torch.unique(batch.grid_coord, dim=0)) == len(batch.grid_coord)
    assert int(batch.grid_coord.min()) == 0
    assert batch.pixels is not None and len(batch.pixels.depth) == 3 * 40
    assert (batch.pixels.depth > 0).all()


def test_scale_is_told_and_depth_stays_in_metres(store: SceneStore) -> None:
    batch = PretrainDataset(store, "train", PRETRAIN).sample(0, 5)
    extent = (batch.coord.amax(dim=0) - batch.coord.amin(dim=0)).amax()
    assert 0.9 <= float(batch.units_per_metre) <= 1.1
    assert batch.pixels is not None and float(batch.pixels.depth.max()) < 5.5 and float(extent) > 3.0


def test_training_never_sees_held_out_images(store: SceneStore) -> None:
    dataset = PretrainDataset(store, "train", PRETRAIN)
    held_out = {frame.color_path for frame in dataset.scene(0).frames if frame.held_out}
    read = []
    plain = dataset.decode
    dataset.decode = lambda frame: (read.append(frame.color_path), plain(frame))[1]  # type: ignore[assignment]
    for draw in range(5):
        dataset.sample(0, draw)
    assert read and not held_out & set(read)
    assert {frame.color_path for frame in dataset.validation(0).frames} == held_out


def test_validation_cameras_see_the_validation_points(store: SceneStore) -> None:
    """Floor pixels of the moved cameras lie on the floor of the batch, z = 0."""
    dataset = PretrainDataset(store, "train", PRETRAIN, with_labels=True)
    validation = dataset.validation(0)
    frame = validation.frames[0]
    decoded = dataset.decode(frame)
    row, column = torch.nonzero(frame.read_semantic() == 1)[0]
    pixel = torch.tensor([[float(column), float(row)]])
    in_camera = unproject(pixel, decoded.depth[row, column][None], frame.camera.intrinsics)
    position = transform_points(torch.linalg.inv(frame.camera.world_to_camera), in_camera)[0]
    assert abs(float(position[2])) < 0.01
    assert (position[:2].abs() < torch.tensor(SIZE[:2] / 2 + 0.01)).all()


def test_cropped_sample_shows_only_its_region(store: SceneStore) -> None:
    crop = LocalCropConfig(shape="sphere", radius=0.8)
    config = PRETRAIN.model_copy(update={"crop": crop, "augment": published_pretraining_augmentations()[2:]})
    dataset = PretrainDataset(store, "train", config)
    for draw in range(4):
        batch = dataset.sample(0, draw)
        assert batch.pixels is not None and len(batch.pixels.depth) == 120
        units = float(batch.units_per_metre)
        assert (batch.coord.amax(dim=0) - batch.coord.amin(dim=0)).amax() <= 1.6 * units + 1e-4
        surface = surface_of_pixels(batch, batch.pixels)
        assert torch.pdist(surface).max() <= 1.6 * units + 0.01


def test_cropped_validation_region_holds_its_points(store: SceneStore) -> None:
    config = PRETRAIN.model_copy(update={"crop": LocalCropConfig(shape="sphere", radius=0.8)})
    validation = PretrainDataset(store, "train", config).validation(1)
    assert validation.region is not None and validation.frames
    region = replace(validation.region, radius=validation.region.radius + 1e-3)
    assert region.contains(validation.batch.coord).all()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_batches_are_the_same_with_any_number_of_workers(store: SceneStore, n_workers: int) -> None:
    dataset = PretrainDataset(store, "train", PRETRAIN, seed=3)
    order = [[(0, 0), (2, 0)], [(1, 0), (2, 1)]]
    loader = DataLoader(dataset, batch_sampler=order, num_workers=n_workers, collate_fn=dataset.collate)
    fresh = PretrainDataset(store, "train", PRETRAIN, seed=3)
    for batch, keys in zip(loader, order, strict=True):
        assert_equal(batch, dataset.collate([fresh.sample(*key) for key in keys]))


def test_draws_differ(store: SceneStore) -> None:
    dataset = PretrainDataset(store, "train", PRETRAIN)
    assert not torch.equal(dataset.sample(0, 0).coord[:50], dataset.sample(0, 1).coord[:50])


def test_reading_leaves_the_stored_scene_alone(store: SceneStore) -> None:
    dataset = LabelledDataset(store, "train", SEGMENT)
    before = dataset.scene(0).cloud.coord.clone()
    dataset.sample(0, 0)
    assert torch.equal(dataset.scene(0).cloud.coord, before)


def test_scene_without_depth_is_named(tmp_path: Path) -> None:
    blind = [replace(frame, depth=frame.depth * 0) for frame in room_frames(3, 0)]
    dataset = PretrainDataset(write_store(tmp_path, 1, blind), "train", PRETRAIN)
    with pytest.raises(SceneError, match="room0"):
        dataset.sample(0, 0)


def test_scene_without_images_is_named(tmp_path: Path) -> None:
    dataset = PretrainDataset(write_store(tmp_path, 1, []), "train", PRETRAIN)
    with pytest.raises(SceneError, match="room0"):
        dataset.sample(0, 0)


def test_one_valid_pixel_in_one_view_is_enough(tmp_path: Path) -> None:
    """Blind views give way, and the lone pixel is used again and again."""
    frames = []
    for i, frame in enumerate(room_frames(4, 0)):
        depth = frame.depth * 0
        if i == 2:
            depth[7, 11] = 1500
        frames.append(replace(frame, depth=depth))
    pixels = PretrainDataset(write_store(tmp_path, 1, frames), "train", PRETRAIN).sample(0, 0).pixels
    assert pixels is not None and len(pixels.depth) == 120
    assert torch.equal(pixels.pixel, torch.tensor([[11.0, 7.0]]).expand(120, 2))
    torch.testing.assert_close(pixels.depth, torch.full((120,), 1.5))


def test_evaluation_maps_every_point_to_its_voxel(store: SceneStore) -> None:
    dataset = LabelledDataset(store, "train", SEGMENT)
    scene = dataset.scene(0)
    item = dataset.whole(scene)
    inverse = item.voxels.inverse
    assert torch.equal(item.batch.segment, scene.cloud.labels["segment"][item.voxels.index].long())
    shifted = scene.cloud.coord - scene.cloud.coord[0] + item.batch.coord[inverse[0]]
    away = (shifted - item.batch.coord[inverse]).abs().amax(dim=1)
    assert away.max() < 2 * VOXEL.size


def test_label_budget_survives_every_step(store: SceneStore) -> None:
    """All labelled points that do not share a voxel arrive, whatever is dropped and cropped around them."""
    config = SEGMENT.model_copy(
        update={
            "budget": LabelBudgetConfig(points_per_scene=5),
            "sphere_crop": SphereCropConfig(n_points=50),
            "voxel": VoxelConfig(size=0.03),
        }
    )
    dataset = LabelledDataset(store, "train", config)
    for draw in range(6):
        batch = dataset.sample(0, draw)
        assert int((batch.segment >= 0).sum()) == 5
    assert (dataset.whole(dataset.labelled_scene(0)).batch.segment >= 0).all()


def test_color_drop_hides_colors_from_points_only(store: SceneStore) -> None:
    config = PRETRAIN.model_copy(update={"augment": (ColorDropConfig(probability=1.0),)})
    batch = PretrainDataset(store, "train", config).sample(0, 0)
    assert batch.pixels is not None and float(batch.pixels.color.std()) > 0.05
    assert (batch.feature[:, :3] == 0).all() and (batch.feature[:, 3:] != 0).any()


def test_other_features_have_the_stated_width(store: SceneStore) -> None:
    config = SEGMENT.model_copy(update={"features": ("normal", "height", "offset", "ones", "coord")})
    batch = LabelledDataset(store, "train", config).sample(0, 0)
    assert batch.feature.shape[1] == config.n_channels == 11
    assert batch.feature[:, 4:7].abs().max() <= 1.0
    torch.testing.assert_close(batch.feature[:, 3], batch.coord[:, 2])


def test_collated_views_point_at_their_scene(store: SceneStore) -> None:
    dataset = PretrainDataset(store, "train", PRETRAIN)
    parts = [dataset.sample(i, i) for i in range(3)]
    batch = dataset.collate(parts)
    pixels = batch.pixels
    assert pixels is not None and pixels.view_scene.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    scene_of_ray = pixels.view_scene[pixels.view]
    for i, part in enumerate(parts):
        assert part.pixels is not None
        assert torch.equal(pixels.depth[scene_of_ray == i], part.pixels.depth)
        assert torch.equal(batch.coord[batch_index(batch.offset) == i], part.coord)


def test_unknown_split_is_refused(store: SceneStore) -> None:
    with pytest.raises(SceneError, match="split 'test'"):
        PretrainDataset(store, "test", PRETRAIN)


def test_missing_labels_name_those_that_are_there(store: SceneStore) -> None:
    dataset = LabelledDataset(store, "train", SEGMENT.model_copy(update={"label_field": "segment200"}))
    with pytest.raises(SceneError, match="segment200") as caught:
        dataset.sample(0, 0)
    assert "segment" in (caught.value.fix or "")


def test_scannet20_has_twenty_of_everything() -> None:
    tables = (scannet20.CLASS_NAMES, scannet20.NYU40_IDS, scannet20.COLORS)
    assert all(len(table) == len(set(table)) == 20 for table in tables)


def test_scannet20_ids_are_those_of_their_names() -> None:
    expected = {"wall": 1, "desk": 14, "shower curtain": 28, "bathtub": 36, "otherfurniture": 39}
    for name, nyu40 in expected.items():
        assert scannet20.CLASS_OF_NYU40[nyu40] == scannet20.CLASS_NAMES.index(name)
    assert 13 not in scannet20.CLASS_OF_NYU40 and 40 not in scannet20.CLASS_OF_NYU40
