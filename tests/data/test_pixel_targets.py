"""Targets of pixels beside colour and depth: the value at the pixel, and none where there is none."""

from __future__ import annotations

from dataclasses import replace

import torch

from ponderv2.data.config import ViewSamplingConfig
from ponderv2.data.pixel_targets import NO_TARGETS, DepthNormals, WantedTargets, with_targets
from ponderv2.data.views import FramePixels, sample_pixels
from ponderv2.scenes.scene import Frame
from tests.data.test_views import HEIGHT, WIDTH, decoded, frame, scene_with

COLUMNS, ROWS = 8, 4
"""Of the feature map: two by three pixels a cell."""


def feature_map() -> torch.Tensor:
    """Channels: column and row of the pixel at the centre of each cell, and 7."""
    row, column = torch.meshgrid(torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij")
    x, y = (column + 0.5) * WIDTH / COLUMNS - 0.5, (row + 0.5) * HEIGHT / ROWS - 0.5
    return torch.stack([x, y, torch.full_like(x, 7.0)]).half()


def pictures(frame: Frame) -> FramePixels:
    """Frame `a` has features, `b` has none."""
    flat = decoded(torch.full((HEIGHT, WIDTH), 2.0))
    return replace(flat, image_feature=feature_map() if frame.id == "a" else None)


def pixels_with(wanted: WantedTargets, rng: torch.Generator):
    frames = [frame("a"), frame("b")]
    config = ViewSamplingConfig(n_views=2, n_pixels=40)
    sampled = sample_pixels(scene_with(frames), frames, config, pictures, rng)
    ids = [one.id for one in sampled.frames]
    return with_targets(sampled.pixels, sampled.frames, pictures, wanted), ids


def test_features_are_bilinear_between_the_centres_of_their_cells(rng: torch.Generator) -> None:
    """A map that is linear in the pixel is found again, and constant beyond the outermost centres."""
    pixels, ids = pixels_with(WantedTargets(feature_channels=3), rng)
    assert pixels.image_feature is not None
    of_a = pixels.view == ids.index("a")
    x, y = pixels.pixel[of_a].T
    expected = torch.stack(
        [x.clamp(0.5, WIDTH - 1.5), y.clamp(1.0, HEIGHT - 2.0), torch.full_like(x, 7.0)], 1
    )
    torch.testing.assert_close(pixels.image_feature[of_a], expected, rtol=1e-4, atol=1e-4)
    assert (pixels.image_feature[~of_a] == 0).all() and len(of_a) == 80


def test_normals_are_in_the_frame_of_the_camera(rng: torch.Generator) -> None:
    pixels, _ = pixels_with(WantedTargets(normals=DepthNormals(1, 80.0)), rng)
    assert pixels.normal is not None
    known = (pixels.normal != 0).any(dim=1)
    assert known.float().mean() > 0.8
    torch.testing.assert_close(
        pixels.normal[known], torch.tensor([0.0, 0.0, -1.0]).expand(int(known.sum()), 3)
    )


def test_nothing_is_added_unless_it_is_wanted(rng: torch.Generator) -> None:
    pixels, _ = pixels_with(NO_TARGETS, rng)
    assert pixels.image_feature is None and pixels.normal is None and pixels.cluster is None
