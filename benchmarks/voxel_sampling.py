"""Points per second of voxelisation: ours and the published way (FNV, np.argsort, np.unique), in one run.

Run: python -m benchmarks.voxel_sampling [--points 100000 1000000] [--repeats 5] [--json FILE]
Times are those of the processor, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.timing import side_by_side
from ponderv2.data.voxelise import grid_cells, group_cells, voxelise

SIZE = 0.02
"""Metres."""


def room_points(n_points: int) -> np.ndarray:
    """On the walls of a room, as dense as scans of S3DIS are, in random order."""
    rng = np.random.default_rng(0)
    edge = np.array([10.0, 8.0, 3.0]) * (n_points / 1e6) ** 0.5
    coord = rng.uniform(0, 1, (n_points, 3)) * edge
    axis = rng.integers(0, 3, n_points)
    coord[np.arange(n_points), axis] = rng.integers(0, 2, n_points) * edge[axis]
    return coord.astype(np.float32)


def published_groups(coord: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The textbook: cells, points by hash, where each voxel begins, how many points it has."""
    cells = np.floor(coord / SIZE).astype(int)
    cells -= cells.min(axis=0)
    key = np.full(len(cells), 14695981039346656037, np.uint64)
    for axis in range(3):
        key *= np.uint64(1099511628211)
        key = np.bitwise_xor(key, cells[:, axis].astype(np.uint64))
    order = np.argsort(key)
    _, inverse, count = np.unique(key[order], return_inverse=True, return_counts=True)
    of_point = np.zeros_like(inverse)
    of_point[order] = inverse
    return cells, order, np.cumsum(np.insert(count, 0, 0)[:-1]), count


def published_train(coord: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One random point per voxel."""
    cells, order, start, count = published_groups(coord)
    index = order[start + rng.integers(0, count.max(), count.size) % count]
    return index, cells[index]


def published_test(coord: np.ndarray) -> list[np.ndarray]:
    """As many selections as the fullest voxel has points."""
    _, order, start, count = published_groups(coord)
    return [order[start + turn % count] for turn in range(count.max())]


def our_test(coord: torch.Tensor) -> list[torch.Tensor]:
    """What `fragments` does before it makes batches."""
    return group_cells(grid_cells(coord, SIZE)[0], "fnv").fragments()


def check_same(coord: np.ndarray) -> None:
    """Both find the same voxels in the same order."""
    cells, _, _, count = published_groups(coord.astype(np.float64))
    ours = group_cells(torch.from_numpy(cells), "fnv")
    assert np.array_equal(ours.count.numpy(), count)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    results = []
    for n_points in options.points:
        coord = room_points(n_points)
        tensor, rng, generator = torch.from_numpy(coord), np.random.default_rng(0), torch.Generator()
        check_same(coord)

        def ours(tensor: torch.Tensor = tensor, generator: torch.Generator = generator) -> None:
            voxelise(tensor, SIZE, "fnv", generator)

        def plain(tensor: torch.Tensor = tensor, generator: torch.Generator = generator) -> None:
            voxelise(tensor, SIZE, "ravel", generator)

        def textbook(coord: np.ndarray = coord, rng: np.random.Generator = rng) -> None:
            published_train(coord, rng)

        def ours_test(tensor: torch.Tensor = tensor) -> None:
            our_test(tensor)

        def textbook_test(coord: np.ndarray = coord) -> None:
            published_test(coord)

        names = ("train", "train, ravel order", "test")
        times = side_by_side(
            [ours, plain, ours_test, textbook, textbook_test], options.repeats, clock=time.process_time
        )
        for name, mine, other in zip(names, times[:3], (times[3], times[3], times[4]), strict=True):
            ratio = median(b / a for a, b in zip(mine, other, strict=True))
            speed = n_points / median(mine) / 1e6, n_points / median(other) / 1e6
            print(
                f"{n_points:8} points, {name:18} ours {speed[0]:6.2f} M points/s, "
                f"published {speed[1]:6.2f}, ratio {ratio:.2f}"
            )
            figures = {"ours_points_per_s": 1e6 * speed[0], "published_points_per_s": 1e6 * speed[1]}
            results.append({"points": n_points, "mode": name, "ratio": ratio, **figures})
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
