"""Batches and Mix3D."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.preprocess import preprocess
from ponderv2.geometry.boxes import Boxes
from ponderv2.scenes.batch import Batch, ImageBatch, MixingCollate, PixelBatch
from ponderv2.scenes.scene import PointCloud, Scene

SIZE = 0.1


def scene(seed: int, n_points: int = 120, shift: float = 0.0, is_merged: bool = False) -> Batch:
    """Points anywhere in their own voxels; feature = number of the point."""
    rng = torch.Generator().manual_seed(seed)
    cells = torch.unique(torch.randint(0, 12, (n_points, 3), generator=rng), dim=0)
    cells = cells - cells.amin(dim=0)
    inside = torch.rand(len(cells), 3, generator=rng)
    return Batch(
        coord=(cells + inside) * SIZE + shift,
        grid_coord=cells,
        feature=torch.arange(len(cells), dtype=torch.float32)[:, None] + 1000.0 * seed,
        offset=torch.tensor([len(cells)]),
        segment=torch.randint(-1, 3, (len(cells),), generator=rng),
        units_per_metre=torch.ones(1),
        condition="toy",
        names=(f"scene{seed}",),
        origin=torch.full((1, 3), shift, dtype=torch.float64),
        slots=((seed,),),
        is_merged=is_merged,
    )


def test_offsets_are_exclusive_ends() -> None:
    parts = [scene(i) for i in range(3)]
    batch = Batch.collate(parts)
    ends = [0, *batch.offset.tolist()]
    for part, start, end in zip(parts, ends[:-1], ends[1:], strict=True):
        assert torch.equal(batch.feature[start:end], part.feature)
    assert batch.names == ("scene0", "scene1", "scene2")


def everything(seed: int) -> Batch:
    """One scene with something in every field; scene 2 has neither points nor boxes."""
    rng = torch.Generator().manual_seed(seed)
    n_points, n_views, n_rays, n_boxes = (0, 3, 7, 0) if seed == 2 else (20 + seed, 2, 5 + seed, 1 + seed)
    some = scene(seed).take(torch.arange(n_points))
    pixels = PixelBatch(
        intrinsics=torch.rand(n_views, 3, 3, generator=rng),
        world_to_camera=torch.rand(n_views, 4, 4, generator=rng),
        view_scene=torch.zeros(n_views, dtype=torch.long),
        view=torch.randint(n_views, (n_rays,), generator=rng),
        pixel=torch.rand(n_rays, 2, generator=rng),
        color=torch.rand(n_rays, 3, generator=rng),
        depth=torch.rand(n_rays, generator=rng),
        label=torch.randint(-1, 4, (n_rays,), generator=rng),
        colored=torch.rand(n_rays, generator=rng) < 0.5,
    )
    images = ImageBatch(
        image=torch.rand(n_views + 1, 3, 4, 6, generator=rng),
        intrinsics=torch.rand(n_views + 1, 3, 3, generator=rng),
        world_to_camera=torch.rand(n_views + 1, 4, 4, generator=rng),
        view_scene=torch.zeros(n_views + 1, dtype=torch.long),
    )
    boxes = Boxes(
        center=torch.rand(n_boxes, 3, generator=rng),
        size=torch.rand(n_boxes, 3, generator=rng),
        yaw=torch.rand(n_boxes, generator=rng),
        velocity=torch.rand(n_boxes, 3, generator=rng),
        category=torch.arange(n_boxes),
        instance=torch.arange(n_boxes),
    )
    return replace(
        some,
        pixels=pixels,
        instance=torch.full((n_points,), -1),
        fields={name: torch.rand(n_points, 2, generator=rng) for name in ("intensity", "beam")},
        images=images,
        boxes=boxes,
        box_scene=torch.zeros(n_boxes, dtype=torch.long),
    )


def tensors(value: object, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor in a value, by the path of field names and keys to it."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    inner = dict(value) if isinstance(value, Mapping) else {}
    if is_dataclass(value):
        inner = {entry.name: getattr(value, entry.name) for entry in fields(value)}
    return {path: one for key, part in inner.items() for path, one in tensors(part, f"{name}.{key}").items()}


def assert_same(first: Batch, second: Batch) -> None:
    one, other = tensors(first), tensors(second)
    assert one.keys() == other.keys() and all(torch.equal(one[path], other[path]) for path in one)
    assert (first.names, first.slots, first.condition) == (second.names, second.slots, second.condition)


def test_the_batch_of_this_test_has_every_field() -> None:
    """So that the tests below see a field that is added and not declared."""
    assert all(getattr(everything(1), entry.name) is not None for entry in fields(Batch))


def test_what_was_collated_comes_apart_again() -> None:
    parts = [everything(i) for i in range(4)]
    batch = Batch.collate(parts)
    for part, again in zip(parts, batch.scenes(), strict=True):
        assert_same(part, again)
    first, second = batch.halves()
    assert_same(first, Batch.collate(parts[:2]))
    assert_same(second, Batch.collate(parts[2:]))
    assert_same(Batch.collate([first, second]), batch)


def test_numbers_count_what_they_belong_to_in_the_whole_batch() -> None:
    parts = [everything(i) for i in range(4)]
    batch = Batch.collate(parts)
    assert batch.pixels is not None and batch.images is not None and batch.box_scene is not None
    n_views = [len(part.pixels.view_scene) for part in parts if part.pixels is not None]
    assert batch.pixels.view_scene.tolist() == [i for i, n in enumerate(n_views) for _ in range(n)]
    scene_of_ray = batch.pixels.view_scene[batch.pixels.view].tolist()
    n_rays = [len(part.pixels.view) for part in parts if part.pixels is not None]
    assert scene_of_ray == [i for i, n in enumerate(n_rays) for _ in range(n)]
    assert batch.images.view_scene.tolist() == [i for i, n in enumerate(n_views) for _ in range(n + 1)]
    assert torch.bincount(batch.box_scene, minlength=4).tolist() == [1, 2, 0, 4]


def test_every_tensor_goes_to_the_device() -> None:
    moved = tensors(everything(1).to("meta"))
    assert moved.keys() == tensors(everything(1)).keys() and len(moved) > 25
    assert all(one.device.type == "meta" for one in moved.values())


def test_chosen_points_have_all_their_fields() -> None:
    part, rows = everything(3), torch.tensor([4, 0, 9])
    before, after = tensors(part), tensors(part.take(rows))
    n_points = int(part.offset)
    for path, values in after.items():
        along = path.count(".") == 1 or path.startswith(".fields")
        if along and before[path].shape[:1] == (n_points,):
            assert torch.equal(values, before[path][rows])
    assert after[".offset"].tolist() == [3] and after[".pixels.depth"].shape == before[".pixels.depth"].shape


def test_all_or_none_bring_pixels() -> None:
    with pytest.raises(ValueError, match="pixels"):
        Batch.collate([everything(0), replace(everything(1), pixels=None)])


def test_fields_that_some_scenes_lack_are_left_out() -> None:
    first, second = everything(0), everything(1)
    second = replace(second, fields={"beam": second.fields["beam"]})
    assert list(Batch.collate([first, second]).fields) == ["beam"]


def test_boxes_of_merged_scenes_are_those_of_both() -> None:
    first, second = (replace(everything(i), pixels=None, images=None) for i in (1, 3))
    merged = first.merged_with(second, SIZE)
    assert merged.boxes is not None and merged.box_scene is not None and first.boxes is not None
    assert len(merged.boxes) == 6 and merged.box_scene.tolist() == [0] * 6
    assert torch.equal(merged.boxes.center[:2], first.boxes.center)
    with pytest.raises(ValueError, match="images"):
        everything(1).merged_with(second, SIZE)


def test_collating_batches_equals_collating_scenes() -> None:
    parts = [scene(i) for i in range(4)]
    at_once, in_two = Batch.collate(parts), Batch.collate([Batch.collate(parts[:3]), parts[3]])
    assert torch.equal(at_once.offset, in_two.offset) and torch.equal(at_once.coord, in_two.coord)


def test_merged_voxels_hold_their_points_once() -> None:
    """The lattice of the second scene is aligned to within one voxel, and no cell occurs twice."""
    first, second = scene(1), scene(2, shift=0.537)
    merged = first.merged_with(second, SIZE)
    assert len(torch.unique(merged.grid_coord, dim=0)) == len(merged.grid_coord) == int(merged.offset[-1])
    lattice = merged.coord / SIZE - merged.grid_coord
    assert (lattice.amax(dim=0) - lattice.amin(dim=0) < 2.2).all()
    assert int(merged.grid_coord.min()) == 0


def test_merged_points_keep_their_own_fields() -> None:
    first, second = scene(1), scene(2)
    both = Batch.collate([first, second])
    merged = first.merged_with(second, SIZE)
    row = {float(value): i for i, value in enumerate(both.feature[:, 0])}
    rows = torch.tensor([row[float(value)] for value in merged.feature[:, 0]])
    assert torch.equal(merged.coord, both.coord[rows]) and torch.equal(merged.segment, both.segment[rows])
    assert (torch.diff(rows) > 0).all()


def test_labelled_points_win_shared_voxels() -> None:
    first, second = scene(1), scene(1)
    nothing = torch.full_like(first.segment, -1)
    merged = replace(first, segment=nothing).merged_with(second, SIZE)
    assert int((merged.segment >= 0).sum()) == int((second.segment >= 0).sum())
    assert len(merged.coord) == len(first.coord)


@pytest.mark.parametrize(
    ("merged", "names"),
    [
        ((1, 4), ("scene0+scene1", "scene2", "scene3+scene4")),
        ((3,), ("scene0", "scene1", "scene2+scene3", "scene4")),
        ((), ("scene0", "scene1", "scene2", "scene3", "scene4")),
    ],
)
def test_scenes_are_merged_with_the_one_before_where_is_merged_is_set(
    merged: tuple[int, ...], names: tuple[str, ...]
) -> None:
    batch = MixingCollate(SIZE)([scene(i, is_merged=i in merged) for i in range(5)])
    assert batch.names == names and len(batch.offset) == len(names)
    assert batch.slots == tuple(
        tuple(int(part.removeprefix("scene")) for part in name.split("+")) for name in names
    )


def test_a_scene_that_is_merged_elsewhere_leaves_a_batch_without_scenes() -> None:
    alone = scene(3, is_merged=True)
    batch = MixingCollate(SIZE)([alone])
    assert (batch.names, batch.slots, batch.condition) == ((), (), "toy")
    assert batch.offset.shape == (0,) and batch.feature.shape == (0, alone.feature.shape[1])
    assert batch.instance.shape == batch.segment.shape == (0,)


def test_scenes_whose_lattice_is_not_known_are_not_merged() -> None:
    with pytest.raises(ValueError, match="lattice"):
        replace(scene(0), origin=None).merged_with(scene(1), SIZE)


VOXEL = 0.02


def flat_scan(fraction: float, n_cells: tuple[int, int], corner: tuple[float, ...], seed: int) -> Batch:
    """A floor whose points all have one position in their cells; most cells of the rectangle are occupied."""
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.meshgrid(torch.arange(n_cells[0]), torch.arange(n_cells[1]), indexing="ij")
    cells = torch.stack([x.flatten(), y.flatten(), torch.zeros(x.numel(), dtype=torch.long)], dim=1)
    cells = (
        cells[torch.rand(len(cells), generator=rng) < 0.8] + torch.tensor(corner).div(VOXEL).round().long()
    )
    coord = ((cells.double() + fraction) * VOXEL).float()
    labels = {"segment": torch.zeros(len(coord), dtype=torch.long)}
    cloud = PointCloud(coord, torch.zeros(len(coord), 3), torch.zeros(len(coord), 3), labels)
    config = LabelledDataConfig.model_validate({"voxel": {"size": VOXEL}})
    one = Scene(name=f"scan{seed}", cloud=cloud)
    return preprocess(one, config, "toy", "segment", rng).batch


@pytest.mark.parametrize(("low", "high"), [(0.05, 0.95), (0.2, 0.75), (0.5, 0.5), (0.95, 0.05)])
def test_merged_scans_lie_in_the_cells_nearest_to_their_own(low: float, high: float) -> None:
    """Where a cell lies follows from the position of its points in it, which is known here."""
    first = flat_scan(low, (60, 45), (-1.0, 0.4, 0.1), 1)
    second = flat_scan(high, (52, 31), (2.0, -0.3, -0.2), 2)
    merged = first.merged_with(second, VOXEL)

    def corner(batch: Batch, fraction: float) -> torch.Tensor:
        """Of cell (0, 0, 0), from every point; they agree."""
        corners = batch.coord.double() - (batch.grid_coord + fraction) * VOXEL
        assert float((corners - corners[0]).abs().max()) < 1e-6
        return corners[0]

    away = (corner(second, high) - corner(first, low)) / VOXEL
    expected = torch.cat([first.grid_coord, second.grid_coord + away.round().long()])
    points = Batch.collate([first, second]).coord.tolist()
    cell = {tuple(point): row for point, row in zip(points, expected.tolist(), strict=True)}
    wanted = torch.tensor([cell[tuple(point)] for point in merged.coord.tolist()])
    assert torch.equal(merged.grid_coord, wanted - expected.amin(dim=0))
    assert len(torch.unique(merged.grid_coord, dim=0)) == len(merged.grid_coord)
    assert merged.origin is not None
    lattice = corner(first, low) + expected.amin(dim=0) * VOXEL
    torch.testing.assert_close(merged.origin[0], lattice, rtol=0, atol=1e-6)


def test_objects_of_different_scenes_keep_apart() -> None:
    """Equal pairs (scene, number) before are equal numbers after, also when scenes merge, and only those."""
    generator = torch.Generator().manual_seed(7)
    parts = [scene(i) for i in range(3)]
    parts = [
        replace(part, instance=torch.randint(-1, 4, part.segment.shape, generator=generator))
        for part in parts
    ]
    true = [(i, int(n)) if n >= 0 else None for i, part in enumerate(parts) for n in part.instance]
    numbers = Batch.collate(parts).instance.tolist()
    assert all((number < 0) == (pair is None) for number, pair in zip(numbers, true, strict=True))
    assert len(set(zip(numbers, true, strict=True))) == len(set(true)) == len(set(numbers))
    both, merged = Batch.collate(parts[:2]), parts[0].merged_with(parts[1], SIZE)
    row = {float(value): i for i, value in enumerate(both.feature[:, 0])}
    rows = torch.tensor([row[float(value)] for value in merged.feature[:, 0]])
    assert torch.equal(merged.instance, both.instance[rows])


def test_scenes_without_objects_have_none() -> None:
    assert (Batch.collate([scene(0), scene(1)]).instance == -1).all()


def test_datasets_do_not_meet_in_a_batch() -> None:
    with pytest.raises(ValueError, match="one dataset"):
        Batch.collate([scene(0), replace(scene(1), condition="other")])


def test_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Batch.collate([])
