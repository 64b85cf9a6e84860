"""Edges of boxes in files, against boxes whose corners are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.io.ply import read_ply
from ponderv2.tasks.box_pictures import write_boxes


def test_edges_far_from_zero_keep_their_millimetres(tmp_path: Path) -> None:
    """Of float32, coordinates of a map projection keep half a metre."""
    origin = (450_000.25, 5_400_000.75, 300.0)
    number = torch.tensor([0])
    center, size = torch.tensor([[1.25, -2.0, 0.5]]), torch.tensor([[4.0, 2.0, 1.0]])
    box = Boxes(center, size, torch.zeros(1), torch.zeros(1, 3), number, number)
    vertex = read_ply(write_boxes(tmp_path / "a.ply", Detections(box, torch.ones(1)), origin)).vertex
    coord = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64)
    middle, half = np.array([450_001.5, 5_399_998.75, 300.5]), np.array([2.0, 1.0, 0.5])
    assert np.allclose(coord.min(axis=0), middle - half, rtol=0, atol=1e-3)
    assert np.allclose(coord.max(axis=0), middle + half, rtol=0, atol=1e-3)
