"""Rays through a street in motion, against boxes and planes in closed form and against all rays at once."""

from __future__ import annotations

import numpy as np
import pytest

from ponderv2.synthetic.streets.casting import Hits, Rays, StreetCaster
from ponderv2.synthetic.streets.config import StreetConfig
from ponderv2.synthetic.streets.lidar import Lidar
from ponderv2.synthetic.streets.rig import make_rig
from ponderv2.synthetic.streets.street import Street, make_street
from tests.synthetic.streets.stage import CAR_CLASS, EXACT, block, stage, straight


def everything(corners: np.ndarray) -> np.ndarray:
    return np.arange(4000)


def slab_distance(origin: np.ndarray, direction: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """First hit of an axis-aligned box by the method of slabs; inf = none."""
    with np.errstate(divide="ignore"):
        one, other = (low - origin) / direction, (high - origin) / direction
    enter, leave = np.minimum(one, other).max(axis=1), np.maximum(one, other).min(axis=1)
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)


@pytest.fixture(scope="module")
def rays() -> Rays:
    rng = np.random.default_rng(3)
    origin = np.tile((0.0, 0.0, 1.5), (4000, 1)) + rng.normal(0.0, 0.2, (4000, 3))
    direction = rng.normal(0.0, 1.0, (4000, 3)) * (1.0, 0.3, 0.1)
    return Rays(
        origin, direction / np.linalg.norm(direction, axis=1, keepdims=True), rng.uniform(0, 2.0, 4000)
    )


def test_a_moving_box_is_hit_where_it_is_at_the_time_of_the_ray(rays: Rays) -> None:
    yaw, speed, start, size = 0.4, 6.0, (9.0, 1.0), np.array([4.0, 2.0, 1.6])
    hits = StreetCaster(stage(block((4.0, 2.0, 1.6), straight(speed, start, yaw)))).cast(rays, everything)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]])
    middle = np.array([*start, 0.8]) + rays.time[:, None] * speed * turn[:, 0]
    expected = slab_distance((rays.origin - middle) @ turn, rays.direction @ turn, -size / 2, size / 2)
    ground = np.where(rays.direction[:, 2] < 0, -rays.origin[:, 2] / rays.direction[:, 2], np.inf)
    first = np.minimum(expected, ground)
    near = first < 300.0
    assert (expected < ground).sum() > 100
    np.testing.assert_allclose(hits.distance[near], first[near], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(hits.actor[near] == 0, (expected < ground)[near])


def test_normals_face_the_ray_and_are_those_of_the_surface(rays: Rays) -> None:
    hits = StreetCaster(stage(block((4.0, 2.0, 1.6), straight(5.0, (9.0, 1.0), 0.7)))).cast(rays, everything)
    on_box, on_ground = hits.actor == 0, (hits.actor < 0) & (hits.part >= 0)
    assert (np.einsum("rj,rj->r", hits.normal, rays.direction)[on_box | on_ground] < 0).all()
    np.testing.assert_allclose(
        hits.normal[on_ground], np.tile((0.0, 0.0, 1.0), (on_ground.sum(), 1)), atol=1e-6
    )
    point = hits.local[on_box]
    face = np.abs(point / (2.0, 1.0, 0.8) - (0.0, 0.0, 1.0)).argmax(axis=1)
    assert np.array_equal(np.abs(hits.local_normal[on_box]).argmax(axis=1), face)


def test_what_a_box_would_cover_alone_does_not_depend_on_a_wall_before_it(rays: Rays) -> None:
    actor = block((4.0, 2.0, 1.6), straight(0.0, (20.0, 0.0)))
    free = StreetCaster(stage(actor)).cast(rays, everything)
    hidden = StreetCaster(stage(actor, walls=(8.0,))).cast(rays, everything)
    assert free.alone == hidden.alone and free.alone[0] > 20
    assert (free.actor == 0).sum() == free.alone[0]
    assert (hidden.actor == 0).sum() == 0


@pytest.fixture(scope="module")
def street() -> Street:
    return make_street(np.random.default_rng([5, 1]), StreetConfig(key_frames=2, traffic=0.4))


def test_a_revolution_misses_no_actor_by_its_choice_of_columns(street: Street, monkeypatch) -> None:
    """Every actor is cast against the rays that may meet it; the outcome is that of all rays."""
    caster = StreetCaster(street)
    lidar = Lidar(caster, make_rig(np.random.default_rng(1), EXACT), EXACT)
    found: list[Hits] = []
    cast = caster.cast

    def both(rays: Rays, candidates) -> Hits:
        chosen = cast(rays, candidates)
        found.extend([chosen, cast(rays, lambda corners: np.arange(len(rays.origin)))])
        return chosen

    monkeypatch.setattr(caster, "cast", both)
    lidar.sweep(np.random.default_rng(0), 0.3)
    chosen, whole = found
    near = whole.distance < 100.0
    assert len(np.unique(whole.actor[near])) > 5
    np.testing.assert_array_equal(chosen.actor[near], whole.actor[near])
    np.testing.assert_array_equal(chosen.distance[near], whole.distance[near])


def test_labels_of_the_parts_are_those_of_the_categories() -> None:
    caster = StreetCaster(stage(block((4.0, 2.0, 1.6), straight(0.0, (9.0, 0.0)))))
    assert caster.label[-1] == CAR_CLASS
