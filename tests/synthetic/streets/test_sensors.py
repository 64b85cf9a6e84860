"""The LiDAR and the cameras of a street: planes in closed form, motion, and each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ponderv2.synthetic.streets.camera import StreetCamera, StreetView
from ponderv2.synthetic.streets.casting import StreetCaster
from ponderv2.synthetic.streets.config import StreetConfig
from ponderv2.synthetic.streets.lidar import ELEVATION, Lidar, LidarSweep
from ponderv2.synthetic.streets.rig import PERIOD, Rig, make_rig
from ponderv2.synthetic.streets.street import Street, make_street
from tests.synthetic.streets.stage import CAR_CLASS, EXACT, ROAD_CLASS, WALL_CLASS, block, stage, straight


def sensors(street: Street, config: StreetConfig = EXACT) -> tuple[Rig, Lidar, StreetCamera]:
    rig, caster = make_rig(np.random.default_rng(2), config), StreetCaster(street)
    return rig, Lidar(caster, rig, config), StreetCamera(caster, rig, config)


def in_world(lidar: Lidar, sweep: LidarSweep, end: float) -> np.ndarray:
    pose = lidar.pose(np.array(end))
    return sweep.coord.astype(float) @ pose[:3, :3].T + pose[:3, 3]


def test_a_plain_is_measured_at_its_distance_in_closed_form() -> None:
    _, lidar, _ = sensors(stage())
    sweep = lidar.sweep(np.random.default_rng(0), 1.0)
    ground = sweep.label == ROAD_CLASS
    distance = np.linalg.norm(sweep.coord[ground], axis=1)
    pose = lidar.pose(np.array(1.0))
    down = -(sweep.coord[ground].astype(float) @ pose[:3, :3].T)[:, 2] / distance
    assert ground.sum() > 1000
    np.testing.assert_allclose(distance, pose[2, 3] / down, rtol=1e-4)
    slope = np.arcsin(sweep.coord[ground, 2] / distance)
    np.testing.assert_allclose(slope, ELEVATION[sweep.ring[ground]], atol=1e-4)


@pytest.mark.parametrize("compensated", [True, False])
def test_the_motion_of_the_vehicle_is_taken_out_of_a_revolution(compensated: bool) -> None:
    """A wall 20 m ahead: seen from the end of the revolution it is a plane, as measured it is not."""
    speed, end = 12.0, 0.5
    config = replace_config(compensated=compensated)
    _, lidar, _ = sensors(stage(walls=(26.0,), speed=speed), config)
    sweep = lidar.sweep(np.random.default_rng(0), end)
    x = in_world(lidar, sweep, end)[sweep.label == WALL_CLASS, 0]
    assert len(x) > 100
    if compensated:
        assert np.abs(x - 26.0).max() < 1e-3
    else:
        assert 0.05 * speed * PERIOD < np.abs(x - 26.0).max() < 1.3 * speed * PERIOD


def test_a_moving_box_is_annotated_where_the_lidar_met_it() -> None:
    actor = block((4.0, 2.0, 1.6), straight(15.0, (12.0, 3.0)))
    _, lidar, _ = sensors(stage(actor))
    end = 0.5
    sweep = lidar.sweep(np.random.default_rng(0), end)
    points = in_world(lidar, sweep, end)[sweep.label == CAR_CLASS]
    seen = lidar.seen_at(end, actor.track.at(np.array(end))[:3])
    assert end - PERIOD <= seen <= end
    middle = actor.track.at(np.array(seen))[:2]
    assert len(points) > 10
    assert (np.abs(points[:, :2] - middle) <= np.array([2.0, 1.0]) + 0.1).all()


def test_noise_drops_points_and_blurs_ranges_by_its_deviation() -> None:
    config = replace_config(noise=True, columns=720)
    _, exact, _ = sensors(stage(walls=(15.0,)), replace_config(columns=720))
    _, noisy, _ = sensors(stage(walls=(15.0,)), config)
    truth, sweep = exact.sweep(np.random.default_rng(0), 1.0), noisy.sweep(np.random.default_rng(0), 1.0)
    assert 0.5 * len(truth.coord) < len(sweep.coord) < 0.99 * len(truth.coord)
    x = in_world(noisy, sweep, 1.0)[sweep.label == WALL_CLASS, 0]
    assert 0.01 < x.std() < 0.04 and abs(x.mean() - 15.0) < 0.01
    assert (sweep.label == 0).sum() > 0


def test_a_camera_sees_a_plain_and_a_wall_at_their_depth() -> None:
    rig, _, camera = sensors(stage(walls=(30.0,)))
    front = next(one for one in rig.cameras if one.channel == "CAM_FRONT")
    view = camera.render(front, 0.0, camera.shadows(0.0))
    row, column = np.indices(view.depth.shape)
    ray = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(front.intrinsics).T
    world = ray @ front.to_ego[:3, :3].T
    expected = np.where(world[..., 2] < 0, -front.to_ego[2, 3] / world[..., 2], np.inf)
    expected = np.minimum(expected, (30.0 - front.to_ego[0, 3]) / world[..., 0])
    seen = np.isfinite(view.depth) & (expected < 200)
    assert seen.mean() > 0.7
    np.testing.assert_allclose(view.depth[seen], expected[seen], rtol=1e-4)


@pytest.fixture(scope="module")
def generated() -> tuple[Rig, Lidar, list[StreetView]]:
    config = replace_config(width=160, height=90)
    street = make_street(np.random.default_rng([5, 2]), StreetConfig(key_frames=2, traffic=0.4))
    street = replace(street, ego=straight(0.0, tuple(street.ego.at(np.array(0.0))[:2]), 0.3))
    rig, lidar, camera = sensors(street, config)
    shadows = camera.shadows(0.0)
    return rig, lidar, [camera.render(one, -one.before_end, shadows) for one in rig.cameras]


def test_lidar_points_lie_at_the_depth_that_the_cameras_see(generated) -> None:
    """From 0.3 to 2 m away most points are visible; those that are have the depth of their pixel."""
    rig, lidar, views = generated
    sweep = lidar.sweep(np.random.default_rng(0), 0.0)
    points = (
        sweep.coord[sweep.label != 31].astype(float) @ rig.lidar_to_ego[:3, :3].T + rig.lidar_to_ego[:3, 3]
    )
    n_seen = n_close = 0
    for camera, view in zip(rig.cameras, views, strict=True):
        local = (points - camera.to_ego[:3, 3]) @ camera.to_ego[:3, :3]
        local = local[local[:, 2] > 1.0]
        pixel = local @ camera.intrinsics.T
        column, row = np.round(pixel[:, :2] / pixel[:, 2:]).astype(int).T
        inside = (column >= 0) & (column < 160) & (row >= 0) & (row < 90)
        depth = view.depth[row[inside], column[inside]]
        n_seen += inside.sum()
        n_close += (np.abs(depth - local[inside, 2]) < 0.08 * local[inside, 2]).sum()
    assert n_seen > 500
    assert n_close > 0.85 * n_seen


def test_every_visible_pixel_of_an_actor_counts_among_those_it_covers_alone(generated) -> None:
    _, _, views = generated
    shown = 0
    for view in views:
        numbers, counts = np.unique(view.actor[view.actor >= 0], return_counts=True)
        for number, count in zip(numbers, counts, strict=True):
            assert count <= view.alone[int(number)]
        shown += len(numbers)
    assert shown > 3


def replace_config(**changes: object) -> StreetConfig:
    return StreetConfig.model_validate({**EXACT.model_dump(), **changes})
