"""Views and pixels: which are drawn, and that it never fails where one pixel is usable."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch

from ponderv2.data.config import ViewSamplingConfig
from ponderv2.data.crops import Region
from ponderv2.data.views import (
    FrameDecoder,
    FramePixels,
    decode,
    draw_pixels,
    frames_seeing,
    sample_pixels,
    surface_points,
)
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera, project
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.scene import Frame, PointCloud, Scene

WIDTH, HEIGHT = 16, 12
INTRINSICS = torch.tensor([[10.0, 0, 7.5], [0, 10.0, 5.5], [0, 0, 1]])


def frame(name: str, position: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Frame:
    """A camera that faces +z of the world."""
    to_camera = torch.eye(4)
    to_camera[:3, 3] = -torch.tensor(position)
    return Frame(name, Camera(INTRINSICS, to_camera, WIDTH, HEIGHT), 0.001, Path(name), Path(name))


def decoded(depth: torch.Tensor) -> FramePixels:
    """Colour = column, row, 9."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    color = torch.stack([columns, rows, torch.full_like(rows, 9)], dim=-1).to(torch.uint8)
    return FramePixels(color, depth, None, torch.nonzero(depth.flatten())[:, 0].to(torch.int32))


def depth_with(*valid: tuple[int, int]) -> torch.Tensor:
    """Two metres at the given rows and columns, nothing elsewhere."""
    depth = torch.zeros(HEIGHT, WIDTH)
    for row, column in valid:
        depth[row, column] = 2.0
    return depth


def scene_with(frames: list[Frame], points: torch.Tensor | None = None) -> Scene:
    coord = torch.rand(20, 3) if points is None else points
    return Scene("attic", PointCloud(coord, torch.zeros_like(coord), torch.zeros_like(coord)), tuple(frames))


def choose(pictures: dict[str, torch.Tensor], config: ViewSamplingConfig, rng: torch.Generator):
    frames = [frame(name) for name in pictures]
    return sample_pixels(scene_with(frames), frames, config, lambda f: decoded(pictures[f.id]), rng)


def test_targets_belong_to_their_pixels(rng: torch.Generator) -> None:
    depth = torch.rand(HEIGHT, WIDTH, generator=rng) + 1.0
    chosen = choose({"a": depth}, ViewSamplingConfig(n_views=1, n_pixels=30), rng)
    column, row = chosen.pixels.pixel.long().T
    assert torch.equal(chosen.pixels.depth, depth[row, column])
    torch.testing.assert_close(
        chosen.pixels.color, torch.stack([column, row, torch.full_like(row, 9)], 1) / 255.0
    )
    assert (chosen.pixels.label == -1).all()


def test_pixels_of_a_view_do_not_repeat_while_there_are_enough(rng: torch.Generator) -> None:
    full = torch.ones(HEIGHT, WIDTH)
    chosen = choose({"a": full, "b": full}, ViewSamplingConfig(n_views=2, n_pixels=HEIGHT * WIDTH), rng)
    for view in (0, 1):
        assert len(torch.unique(chosen.pixels.pixel[chosen.pixels.view == view], dim=0)) == HEIGHT * WIDTH


def test_few_valid_pixels_are_all_used_and_then_again(rng: torch.Generator) -> None:
    valid = [(1, 2), (3, 4), (5, 6)]
    chosen = choose({"a": depth_with(*valid)}, ViewSamplingConfig(n_views=1, n_pixels=10), rng)
    used = Counter((int(y), int(x)) for x, y in chosen.pixels.pixel)
    assert set(used) == set(valid) and sum(used.values()) == 10


def test_views_without_depth_give_way(rng: torch.Generator) -> None:
    pictures = {str(i): depth_with() for i in range(6)}
    pictures["3"] = depth_with((0, 0), (1, 1))
    for _ in range(5):
        chosen = choose(pictures, ViewSamplingConfig(n_views=3, n_pixels=4), rng)
        assert [f.id for f in chosen.frames] == ["3", "3", "3"]
        assert chosen.pixels.view.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert (chosen.pixels.depth == 2.0).all()


def test_views_with_few_pixels_are_the_second_choice(rng: torch.Generator) -> None:
    pictures = {"poor": depth_with((0, 0)), **{str(i): torch.ones(HEIGHT, WIDTH) for i in range(3)}}
    config = ViewSamplingConfig(n_views=3, n_pixels=4, min_valid_pixels=10)
    assert all("poor" not in {f.id for f in choose(pictures, config, rng).frames} for _ in range(10))
    more = config.model_copy(update={"n_views": 4})
    assert "poor" in {f.id for f in choose(pictures, more, rng).frames}


def test_views_do_not_repeat_while_there_are_enough(rng: torch.Generator) -> None:
    pictures = {str(i): torch.ones(HEIGHT, WIDTH) for i in range(5)}
    chosen = choose(pictures, ViewSamplingConfig(n_views=5, n_pixels=2), rng)
    assert len({f.id for f in chosen.frames}) == 5


def test_scene_without_valid_pixels_is_named(rng: torch.Generator) -> None:
    with pytest.raises(SceneError, match="attic"):
        choose({"a": depth_with(), "b": depth_with()}, ViewSamplingConfig(), rng)
    with pytest.raises(SceneError, match="attic"):
        choose({}, ViewSamplingConfig(), rng)


def test_depth_limit_is_kept(rng: torch.Generator) -> None:
    depth = torch.rand(HEIGHT, WIDTH, generator=rng) * 4.0 + 0.5
    chosen = choose({"a": depth}, ViewSamplingConfig(n_views=1, n_pixels=50, max_depth=2.0), rng)
    assert float(chosen.pixels.depth.max()) <= 2.0


@pytest.mark.parametrize("n_valid", [40, 200, 5000])
def test_every_valid_pixel_is_drawn_as_often(n_valid: int, rng: torch.Generator) -> None:
    """Chi-squared over many draws stays near its expectation, whichever way pixels are drawn."""
    valid = torch.arange(n_valid) * 3
    count = torch.zeros(n_valid)
    for _ in range(400):
        drawn = draw_pixels(valid, 20, rng)
        assert len(torch.unique(drawn)) == 20 and (drawn % 3 == 0).all()
        count[drawn // 3] += 1
    expected = 400 * 20 / n_valid
    chi = float(((count - expected) ** 2 / expected).sum()) / (n_valid - 1)
    # Drawing without replacement lowers the variance by 1 - 20 / n.
    assert chi == pytest.approx(1.0 - 20 / n_valid, abs=0.35)


def test_region_pixels_show_the_region(rng: torch.Generator) -> None:
    frames = [frame("a"), frame("b", (5.0, 0.0, 0.0)), frame("far", (90.0, 0.0, 0.0))]
    region = Region(torch.tensor([0.3, 0.1, 2.0]), 0.4, "sphere")
    flat = torch.full((HEIGHT, WIDTH), 2.0)
    config = ViewSamplingConfig(n_views=2, n_pixels=12)
    scene = scene_with(frames, torch.tensor([[0.3, 0.1, 2.0], [5.0, 0.0, 2.0]]))
    chosen = sample_pixels(scene, frames, config, lambda _: decoded(flat), rng, region)
    assert {f.id for f in chosen.frames} == {"a"}
    position = torch.cat(
        [(chosen.pixels.pixel - INTRINSICS[:2, 2]) / 10.0 * 2.0, torch.full((24, 1), 2.0)], dim=1
    )
    assert region.contains(position).all()


def test_surface_points_undo_the_projection() -> None:
    picture = torch.full((HEIGHT, WIDTH), 3.0)
    looking = frame("a", (1.0, 2.0, -1.0))
    numbers = torch.tensor([0, 17, HEIGHT * WIDTH - 1])
    points = surface_points(looking, decoded(picture), numbers)
    pixel, depth = project(transform_points(looking.camera.world_to_camera, points), INTRINSICS)
    torch.testing.assert_close(depth, torch.full((3,), 3.0))
    torch.testing.assert_close(pixel, torch.stack([numbers % WIDTH, numbers // WIDTH], dim=1).float())


def test_frames_see_what_is_in_front_of_them() -> None:
    frames = [frame("a"), frame("behind", (0.0, 0.0, 5.0)), frame("aside", (30.0, 0.0, 0.0))]
    assert frames_seeing(frames, torch.tensor([[0.0, 0.0, 2.0]])).tolist() == [True, False, False]


def test_cache_is_bounded_and_hands_out_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def fake(one: Frame) -> FramePixels:
        read.append(one.id)
        return decoded(torch.ones(HEIGHT, WIDTH))

    monkeypatch.setattr("ponderv2.data.views.decode", fake)
    size = fake(frame("x")).n_bytes
    read.clear()
    decoder = FrameDecoder(megabytes=2.5 * size / 1e6)
    frames = [frame(name) for name in "abc"]
    for one in (*frames, frames[2], frames[1]):
        decoder(one)
    assert read == ["a", "b", "c"]
    decoder(frames[0])
    assert read == ["a", "b", "c", "a"]
    assert decoder.memory.n_bytes <= 2.5 * size and len(decoder.memory) == 2
    assert len(pickle.loads(pickle.dumps(decoder)).memory) == 0


def test_depths_that_are_not_numbers_are_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = depth_with((0, 0))
    depth[1, 1], depth[2, 2], depth[3, 3] = torch.nan, torch.inf, -1.0
    monkeypatch.setattr(Frame, "read_color", lambda self: torch.zeros(HEIGHT, WIDTH, 3, dtype=torch.uint8))
    monkeypatch.setattr(Frame, "read_depth", lambda self: depth)
    one = decode(frame("a"))
    assert one.valid.tolist() == [0] and int((one.depth > 0).sum()) == 1


def test_pictures_of_two_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Frame, "read_color", lambda self: torch.zeros(24, 32, 3, dtype=torch.uint8))
    monkeypatch.setattr(Frame, "read_depth", lambda self: depth_with())
    with pytest.raises(SceneError, match="differ in size"):
        decode(frame("a"))
