"""Test-time voting over views and fragments beside the published procedure, written out in NumPy.

Run from the project's root: `python -m benchmarks.evaluation_voting [--points 100000] [--json FILE]`.

Measured alternately: `alone` with a network that costs nothing, so that cutting scenes and counting votes is
all there is; `network` with a small sparse U-Net. The published way cuts a scene into all fragments of a view
first, then takes one fragment at a time. Prints medians of points per second and ratios; asserts nothing but
that both ways find the same classes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.fragments import TEST_SETS, TestView
from ponderv2.encoder.config import SparseUNetConfig
from ponderv2.heads.config import LinearHeadConfig
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.scene import PointCloud, Scene
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.tasks.segmentation.predictions import Predict, vote

N_CLASSES = 20
CONFIG = LabelledDataConfig()


def room(n_points: int) -> Scene:
    """Points on the walls, the floor and some boxes of a room of 6 x 4 x 2.6 m."""
    rng = np.random.default_rng(0)
    size = np.array([6.0, 4.0, 2.6])
    lower, extent = [np.zeros(3)], [size]
    for _ in range(12):
        side = rng.uniform(0.3, 1.2, 3)
        lower.append(rng.uniform(0, 1, 3) * (size - side) * [1, 1, 0])
        extent.append(side)
    areas = np.array([2 * (e[0] * e[1] + e[1] * e[2] + e[0] * e[2]) for e in extent])
    which = rng.choice(len(areas), n_points, p=areas / areas.sum())
    place, axis = rng.uniform(0, 1, (n_points, 3)), rng.integers(0, 3, n_points)
    place[np.arange(n_points), axis] = rng.integers(0, 2, n_points)
    coord = np.array(lower)[which] + place * np.array(extent)[which]
    normal = np.eye(3)[axis]
    color = rng.uniform(0, 255, (n_points, 3))
    arrays = (torch.from_numpy(array.astype(np.float32)) for array in (coord, color, normal))
    return Scene("room", PointCloud(*arrays))


def network() -> SegmentationModel:
    """A sparse U-Net of four stages, small enough for one core."""
    encoder = SparseUNetConfig(base_channels=16, channels=(16, 16, 32, 32, 32, 32, 16, 16), layers=(1,) * 8)
    torch.manual_seed(0)
    config = SegmentationModelConfig(encoder=encoder, head=LinearHeadConfig(n_classes=N_CLASSES))
    return SegmentationModel(config).eval()


def published(scene: Scene, predict: Predict, views: tuple[TestView, ...]) -> Tensor:
    """As the published code does it, in its order of steps."""
    cloud = scene.cloud
    base = cloud.coord.numpy()
    low, high = base.min(0), base.max(0)
    base = base - np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], np.float32)
    pieces: list[dict[str, np.ndarray]] = []
    for view in views:
        angle = view.half_turns * math.pi
        turn = np.array(
            [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
        )
        coord, normal = base @ turn.T * view.scale, cloud.normal.numpy() @ turn.T
        if view.flip:
            coord, normal = coord * [-1, -1, 1], normal * [-1, -1, 1]
        pieces += _numpy_fragments(coord.astype(np.float32), cloud.color.numpy(), normal.astype(np.float32))
    votes = torch.zeros(len(cloud), N_CLASSES)
    for piece in pieces:
        scores = predict(_numpy_batch(piece))
        probability = torch.softmax(scores, dim=1)
        index = torch.from_numpy(piece["index"])
        votes[index, :] += probability
    return votes


def _numpy_fragments(coord: np.ndarray, color: np.ndarray, normal: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Every k-th point of every voxel, sorted by hash."""
    cells = np.floor(coord.astype(np.float64) / CONFIG.voxel.size).astype(np.int64)
    cells -= cells.min(0)
    key = np.full(len(cells), 14695981039346656037, np.uint64)
    for axis in range(3):
        key = (key * np.uint64(1099511628211)) ^ cells[:, axis].astype(np.uint64)
    order = np.argsort(key, kind="stable")  # the published sort is not: which point comes first is open
    _, _, count = np.unique(key[order], return_inverse=True, return_counts=True)
    start = np.cumsum(np.insert(count, 0, 0)[:-1])
    pieces = []
    for number in range(count.max()):
        index = order[start + number % count]
        pieces.append(
            {
                "index": index,
                "cells": cells[index],
                "coord": coord[index],
                "color": color[index],
                "normal": normal[index],
            }
        )
    return pieces


def _numpy_batch(piece: dict[str, np.ndarray]) -> Batch:
    coord = piece["coord"]
    low, high = coord.min(0), coord.max(0)
    coord = coord - np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, 0], np.float32)
    feature = np.concatenate([piece["color"] / 127.5 - 1, piece["normal"]], axis=1)
    n_points = len(coord)
    return Batch(
        coord=torch.from_numpy(coord),
        grid_coord=torch.from_numpy(piece["cells"]),
        feature=torch.from_numpy(feature.astype(np.float32)),
        offset=torch.tensor([n_points]),
        segment=torch.full((n_points,), -1),
        units_per_metre=torch.ones(1),
        condition="room",
        names=("room",),
    )


def by_color(batch: Batch) -> Tensor:
    """Scores at almost no cost, which depend on the point alone."""
    return batch.feature[:, :1] * torch.arange(N_CLASSES, dtype=torch.float32)


def seconds(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Time of this process on the processor, so that other work counts little."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def compare(scene: Scene, predict: Predict, views: tuple[TestView, ...], repeats: int) -> dict[str, float]:
    """Medians of both ways, measured in turns."""

    def ours() -> Tensor:
        return vote(scene, predict, CONFIG, "room", views)

    def theirs() -> Tensor:
        with torch.no_grad():
            return published(scene, predict, views)

    times, same = [], 1.0
    for number in range(repeats + 1):
        (mine, votes), (other, expected) = seconds(ours), seconds(theirs)
        same = min(same, float((votes.argmax(1) == expected.argmax(1)).float().mean()))
        if number:  # the first round of each is slower
            times.append((mine, other))
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "points_per_second": len(scene.cloud) / mine,
        "points_per_second_published": len(scene.cloud) / other,
        "seconds": mine,
        "seconds_published": other,
        "ratio": statistics.median(b / a for a, b in times),
        "same_classes": same,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument(
        "--network-points", type=int, default=30_000, help="points of the room for the network"
    )
    parser.add_argument(
        "--views", choices=[name for name in TEST_SETS if TEST_SETS[name]], default="scannet200"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    views, model = TEST_SETS[arguments.views], network()
    runs = {
        "alone": (room(arguments.points), by_color),
        "network": (room(arguments.network_points), model.logits),
    }
    found: dict[str, object] = {"views": arguments.views, "repeats": arguments.repeats}
    for name, (scene, predict) in runs.items():
        result = compare(scene, predict, views, arguments.repeats)
        found[name] = {"points": len(scene.cloud), **result}
        print(
            f"{name:8} {len(scene.cloud)} points x {len(views)} views: "
            f"{result['points_per_second']:.0f} points/s, published way "
            f"{result['points_per_second_published']:.0f} points/s, ratio {result['ratio']:.2f}, "
            f"same class {100 * result['same_classes']:.2f} %"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
