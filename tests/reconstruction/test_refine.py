"""Refinement of a room whose walls, depths and colours are known."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from ponderv2.geometry.cameras import Camera
from ponderv2.reconstruction.config import RefineConfig
from ponderv2.reconstruction.refine import (
    EMPTY,
    Recording,
    initial_scene,
    misfit,
    refine,
    refine_losses,
    training_samples,
)
from ponderv2.reconstruction.scene_field import render_camera
from ponderv2.scenes.scene import evenly_spread
from tests.scenes.closed_form_room import HEIGHT, SIZE, WIDTH, exact_image, write_store

CONFIG = RefineConfig(steps=150, n_rays=512, cell=0.1, coarse_factor=3, detail_cell=None, truncation=0.15)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"), n_scenes=1).read("room0")


@pytest.fixture(scope="module")
def recording(scene):
    return Recording.read([frame for frame in scene.frames if not frame.held_out])


def start(scene, recording, config=CONFIG, field=None):
    fitted = torch.tensor([not frame.held_out for frame in scene.frames])
    return initial_scene(recording, tuple(frame.id for frame in scene.frames), fitted, config, field)


@pytest.fixture(scope="module")
def fitted(scene, recording):
    field = start(scene, recording)
    refine(field, recording, CONFIG)
    return field


class KnownRoom:
    """The room's exact signed distance and colours, as if a model gave them."""

    lower, upper = torch.full((3,), -9.0), torch.full((3,), 9.0)

    def signed_distance(self, points):
        return torch.minimum(points, torch.tensor(SIZE).float() - points).amin(dim=-1)

    def color(self, points, directions):
        return (points / torch.tensor(SIZE).float()).clamp(0.1, 0.9)

    to_volume = torch.eye(4)

    def render(self, rays, chunk):
        raise NotImplementedError

    @property
    def cell(self) -> float:
        return 0.5

    @property
    def has_color(self) -> bool:
        return True

    def frame_gain(self, frame_id):
        return torch.ones(3)


def test_pixels_of_a_recording_end_on_the_walls(recording):
    points = recording.surface_points().numpy()
    off = np.minimum(np.abs(points), np.abs(points - SIZE)).min(axis=1)
    assert off.max() < 2e-3
    assert len(points) == (recording.depth > 0).sum()


def test_a_start_is_taken_over_at_the_cells(scene, recording):
    field, room = start(scene, recording, field=KnownRoom()), KnownRoom()
    points = field.grids[1].points()
    truth = room.signed_distance(points).clamp(-EMPTY, EMPTY)
    assert torch.allclose(field.signed_distance(points), truth, atol=1e-4)
    assert misfit(field, recording, CONFIG) < 0.5 * misfit(start(scene, recording), recording, CONFIG)
    walls = recording.surface_points()[::7]
    direction = -torch.nn.functional.normalize(field.gradient(walls), dim=-1)
    assert (field.color(walls, direction) - room.color(walls, direction)).abs().mean() < 0.03


def test_every_term_reaches_the_total(scene, recording, rng):
    field = start(scene, recording)
    targets = recording.random_pixels(64, rng)
    starts = training_samples(field, targets, CONFIG, rng)
    losses = refine_losses(field, field.shade(targets.rays, starts), starts, targets, targets.frame)
    terms = [getattr(losses, term.name) for term in fields(losses)]
    assert all(torch.isfinite(term) for term in terms)
    assert float(losses.total().detach()) == pytest.approx(sum(float(term.detach()) for term in terms))


def test_samples_ascend_and_most_lie_around_the_measurement(scene, recording, rng):
    targets = recording.random_pixels(64, rng)
    starts = training_samples(start(scene, recording), targets, CONFIG, rng)
    assert (starts[:, 1:] >= starts[:, :-1]).all()
    near = (starts - targets.distance[:, None]).abs() <= CONFIG.truncation + 1e-5
    assert (near.sum(dim=-1) >= CONFIG.n_near).all()


@pytest.mark.parametrize("angle", [0.5, 1.6, 2.6])
def test_new_views_of_the_fitted_room_have_its_depth_and_colours(fitted, angle):
    real = exact_image("new", np.array([2.1, 1.4, 1.3]), angle)
    pose = torch.from_numpy(np.linalg.inv(real.camera_to_world)).float()
    camera = Camera(torch.from_numpy(real.intrinsics).float(), pose, WIDTH, HEIGHT)
    seen = render_camera(fitted, camera, 4096).without_background()
    assert (seen.depth > 0).float().mean() > 0.98
    error = (seen.depth - torch.from_numpy(real.depth.astype(np.float32)) / 1000).abs()
    assert error[seen.depth > 0].mean() < 0.03
    assert (seen.color - torch.from_numpy(real.color).float() / 255).abs().mean() < 0.05
    forward = real.camera_to_world[:3, 2]
    assert ((seen.normal @ torch.from_numpy(forward).float())[seen.depth > 0] < 0.2).float().mean() > 0.98


def test_the_same_seed_gives_the_same_scene(scene, recording):
    short = CONFIG.model_copy(update={"steps": 3})
    pair = [start(scene, recording, short) for _ in range(2)]
    for field in pair:
        refine(field, recording, short)
    for first, second in zip(pair[0].parameters(), pair[1].parameters(), strict=True):
        assert torch.equal(first, second)


def test_time_ends_the_fit_before_its_steps(scene, recording, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("ponderv2.reconstruction.refine.time.monotonic", lambda: next(clock))
    limited = CONFIG.model_copy(update={"max_seconds": 4.0})
    assert refine(start(scene, recording, limited), recording, limited) == 3


def test_exposure_of_an_unseen_frame_is_between_its_neighbours(scene, recording):
    field = start(scene, recording)
    with torch.no_grad():
        field.exposure[:4] = torch.tensor([0.0, 0.1, 0.2, 0.3])[:, None]
    field.fitted[1] = False
    assert torch.allclose(field.frame_gain(scene.frames[1].id), torch.full((3,), 0.1).exp())
    assert torch.allclose(field.frame_gain(scene.frames[3].id), torch.full((3,), 0.3).exp())
    assert torch.allclose(
        field.frame_gain(scene.frames[5].id), torch.full((3,), 0.3).exp()
    )  # the last fitted
    assert torch.equal(field.frame_gain(None), torch.ones(3))


def test_a_smaller_chunk_renders_the_same_rays_when_memory_runs_out(fitted, recording, rng, monkeypatch):
    rays = recording.random_pixels(300, rng).rays
    whole = fitted.render(rays, 512)
    shade = type(fitted).shade

    def scarce(self, part, starts):
        if len(part) > 100:
            raise MemoryError
        return shade(self, part, starts)

    monkeypatch.setattr(type(fitted), "shade", scarce)
    parts = fitted.render(rays, 512)
    assert torch.allclose(parts.color, whole.color, atol=1e-6)
    assert torch.allclose(parts.distance, whole.distance, atol=1e-5)


def test_long_recordings_are_thinned_evenly():
    assert evenly_spread(list(range(10)), 20) == tuple(range(10))
    assert evenly_spread(list(range(100)), 4) == (12, 37, 62, 87)
