"""Scans of generated rooms: reproducible bytes, consistent frames, the stated noise, a labelled cloud."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ponderv2.datasets.generated.config import SyntheticConfig
from ponderv2.datasets.generated.reader import find
from ponderv2.reconstruction.fusion import load_open3d
from ponderv2.store.store import SceneStore
from ponderv2.synthetic.classes import CLASS_NAMES
from ponderv2.synthetic.rendering import (
    Pinhole,
    RenderedView,
    RoomRenderer,
    depth_deviation,
    depth_step,
    sense_depth,
)
from ponderv2.synthetic.room import make_room
from ponderv2.synthetic.scan import Scan, mean_per_cube, scan_room

SETTINGS = SyntheticConfig(rooms=2, val_rooms=1, frames=6, width=64, height=48, room_size=(3.0, 4.0))


def scanned(config: SyntheticConfig) -> tuple[RoomRenderer, Scan]:
    rng = np.random.default_rng([config.seed, 2])
    renderer = RoomRenderer(make_room(rng, config))
    return renderer, scan_room(rng, renderer, config)


@pytest.fixture(scope="module")
def noisy() -> tuple[RoomRenderer, Scan]:
    return scanned(SETTINGS)


@pytest.fixture(scope="module")
def exact() -> tuple[RoomRenderer, Scan]:
    return scanned(SETTINGS.model_copy(update={"noise": False}))


def stored_bytes(folder: Path, config: SyntheticConfig) -> dict[str, str]:
    plan = find(config)
    store = SceneStore.create(folder, plan.info)
    for job in plan.scenes:
        store.write(job.split, job.name, job.read(), job.fingerprint())
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_gives_the_same_bytes_and_another_seed_other_rooms(tmp_path: Path) -> None:
    small = SyntheticConfig(rooms=1, val_rooms=0, frames=2, width=32, height=24, room_size=(3.0, 3.5))
    first = stored_bytes(tmp_path / "a", small)
    assert first == stored_bytes(tmp_path / "b", small)
    other = stored_bytes(tmp_path / "c", small.model_copy(update={"seed": 1}))
    same = [name for name in first if other.get(name) == first[name]]
    assert same == ["dataset.yaml"]


def test_a_room_does_not_depend_on_how_many_there_are() -> None:
    few, many = find(SyntheticConfig(rooms=3)), find(SyntheticConfig(rooms=9, val_rooms=2))
    assert [job.fingerprint() for job in few.scenes] == [job.fingerprint() for job in many.scenes[:3]]
    assert len({job.fingerprint() for job in many.scenes}) == 9


def test_splits_have_the_stated_sizes() -> None:
    splits = [job.split for job in find(SyntheticConfig(rooms=10, val_rooms=2, test_rooms=3)).scenes]
    assert splits == ["train"] * 5 + ["test"] * 3 + ["val"] * 2
    assert [job.split for job in find(SyntheticConfig(rooms=40)).scenes].count("val") == 6


def test_more_held_out_rooms_than_rooms_are_refused() -> None:
    with pytest.raises(ValidationError, match="only 4 rooms"):
        SyntheticConfig(rooms=4, val_rooms=3, test_rooms=2)


def test_exact_frames_agree_with_each_other(exact: tuple[RoomRenderer, Scan]) -> None:
    """Points of one frame, seen from another, lie on its surface or behind it; 90 % to 2 mm."""
    _, scan = exact
    first, second = scan.cameras[0], scan.cameras[1]
    depth = scan.frames[0].depth * scan.frames[0].depth_scale
    points = (first.camera_to_world[:3, 3] + first.directions * depth[..., None]).reshape(-1, 3)
    close = []
    for camera, image in zip(scan.cameras[1:], scan.exact[1:], strict=True):
        local = (points - camera.camera_to_world[:3, 3]) @ camera.camera_to_world[:3, :3]
        pixel = local @ camera.intrinsics.T
        spot = np.round(pixel[:, :2] / np.maximum(pixel[:, 2:], 1e-6)).astype(int)
        seen = (
            (local[:, 2] > 0.2) & (spot >= 0).all(axis=1) & (spot < (second.width, second.height)).all(axis=1)
        )
        truth = image.depth[spot[seen, 1], spot[seen, 0]]
        normal = image.normal[spot[seen, 1], spot[seen, 0]]
        ray = camera.directions[spot[seen, 1], spot[seen, 0]]
        foot = camera.camera_to_world[:3, 3] + ray * truth[:, None]
        off_plane = np.abs(((points[seen] - foot) * normal).sum(axis=1))
        hidden = local[seen, 2] > truth + 0.05
        close.append(off_plane[~hidden] < 0.002)
    agreement = np.concatenate(close)
    assert len(agreement) > 300 and agreement.mean() > 0.9


def test_cloud_of_an_exact_scan_lies_on_the_surface(exact: tuple[RoomRenderer, Scan]) -> None:
    o3d = load_open3d()

    renderer, scan = exact
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    surface = renderer.surface
    scene.add_triangles(
        o3d.core.Tensor(surface.vertices.astype(np.float32)), o3d.core.Tensor(surface.faces.astype(np.uint32))
    )
    distance = scene.compute_distance(o3d.core.Tensor(scan.cloud.coord), nthreads=1).numpy()
    assert np.quantile(distance, 0.9) < 0.002 and distance.max() < 0.03


def test_cloud_is_labelled_and_its_normals_are_unit(noisy: tuple[RoomRenderer, Scan]) -> None:
    renderer, scan = noisy
    cloud = scan.cloud
    names = np.array([thing.name for thing in renderer.room.things])
    assert (names[cloud.labels["instance"]] == np.array(CLASS_NAMES)[cloud.labels["segment"]]).all()
    assert np.allclose(np.linalg.norm(cloud.normal, axis=1), 1.0, atol=1e-5)
    up = cloud.normal[cloud.labels["segment"] == CLASS_NAMES.index("floor"), 2]
    assert np.median(up) > 0.98
    assert len({len(cloud.coord), len(cloud.color), len(cloud.normal), len(cloud.labels["segment"])}) == 1


def test_frames_of_the_noisy_scan_show_the_exact_classes(noisy: tuple[RoomRenderer, Scan]) -> None:
    _, scan = noisy
    for frame, image in zip(scan.frames, scan.exact, strict=True):
        assert frame.semantic is not None and np.array_equal(frame.semantic, image.semantic)
        assert 0.0 < (frame.depth == 0).mean() < 0.5
        assert 20 < frame.color.mean() < 235


@pytest.mark.parametrize("depth", [1.0, 2.0, 4.0])
def test_noise_of_a_flat_wall_has_the_stated_deviation(depth: float) -> None:
    shape = (120, 160)
    flat = np.full(shape, depth)
    camera = Pinhole(
        np.array([[400.0, 0, 79.5], [0, 400.0, 59.5], [0, 0, 1.0]]), np.eye(4), shape[1], shape[0]
    )
    wall = RenderedView(
        np.ones((*shape, 3)),
        flat,
        np.broadcast_to(np.array([0.0, 0.0, -1.0]), (*shape, 3)),
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
    )
    measured = sense_depth(np.random.default_rng(0), wall, camera, SETTINGS)
    valid = measured > 0
    step = float(depth_step(flat).max())
    expected = np.sqrt(float(depth_deviation(flat).max()) ** 2 + step**2 / 12)
    assert valid.mean() == pytest.approx(0.99, abs=0.005)
    assert measured[valid].mean() == pytest.approx(depth, abs=0.05 * expected + 0.002 * depth)
    assert measured[valid].std() == pytest.approx(expected, rel=0.2)


def test_mean_per_cube_matches_the_loop() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (200, 5))
    groups: dict[tuple[int, ...], list[np.ndarray]] = {}
    for row in values:
        groups.setdefault(tuple(np.floor(row[:3] / 0.5).astype(int)), []).append(row)
    expected = np.stack([np.mean(groups[key], axis=0) for key in sorted(groups)])
    assert np.allclose(mean_per_cube(values, 0.5), expected)


def test_reference_mesh_is_the_surface_that_rays_hit(noisy: tuple[RoomRenderer, Scan]) -> None:
    renderer, scan = noisy
    assert np.array_equal(scan.mesh.faces, renderer.surface.faces)
    assert np.abs(scan.mesh.vertices.numpy() - renderer.surface.vertices).max() < 1e-5
    assert scan.mesh.colors is not None and scan.mesh.colors.shape == scan.mesh.vertices.shape
