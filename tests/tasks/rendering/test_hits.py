"""What validation compares rendered rays to LiDAR points with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ponderv2.data.config import LidarRaysConfig
from ponderv2.data.lidar_rays import LidarPixels
from ponderv2.geometry.cameras import Camera
from ponderv2.reconstruction.scene_field import ModelField
from ponderv2.scenes.scene import Frame
from ponderv2.tasks.rendering import views


@pytest.mark.parametrize(("round_down", "columns"), [(True, [10.0, 3.0]), (False, [11.0, 3.0])])
def test_colours_of_hits_are_of_the_pixel_that_training_takes(
    round_down: bool, columns: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The red of a pixel is its column."""
    ramp = np.zeros((8, 16, 3), np.uint8)
    ramp[..., 0] = np.arange(16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    camera = Camera(torch.tensor([[9.0, 0, 8], [0, 9, 4], [0, 0, 1]]), torch.eye(4), 16, 8)
    frame = Frame("0", camera, color_path=tmp_path / "ramp.png")
    pixel = torch.tensor([[10.7, 2.2], [3.2, 5.9]])
    hits = LidarPixels(pixel, torch.tensor([4.0, 5.0]), torch.arange(2))
    monkeypatch.setattr(views, "render_pixels", lambda *_: (torch.zeros(2, 3), torch.zeros(2)))
    config = LidarRaysConfig(round_down=round_down)
    pair = views._hit_pair(object.__new__(ModelField), frame, hits, config, 8)
    assert pair.color is not None
    assert (255 * pair.color[:, 0]).round().tolist() == columns
