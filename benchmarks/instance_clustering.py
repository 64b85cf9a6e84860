"""How much faster points become objects than by a ball query over all pairs and a search: both in one run.

Run: python benchmarks/instance_clustering.py [--repeats 5] [--json FILE]

Points are the voxels of a furnished room, moved most of the way to the centre of their object as a trained
model moves them, with noise. `ours` is `group_points`. `all pairs` is the published way on a CPU: for every
point the distances to all points of its scene (in blocks), then breadth first over the lists of neighbours.
`tree` asks a k-d tree for the neighbours when the search comes to a point; it is what is affordable for more
points. All three must give the same objects. At most 1000 neighbours are used in the
published code; here none is left out, in all three. Times are those of one thread of the processor, so that
other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ponderv2.heads.config import GroupingConfig
from ponderv2.heads.instances import group_points

CONFIG = GroupingConfig()
N_CLASSES = 20
Neighbours = Callable[[int], np.ndarray]
"""Points near a point."""


def room(n_points: int, spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions in voxels and scores of about n points: objects of 3000 points, 30 % floor and walls.

    `spread` is the share of the way to the centre that is missing, 1 = not moved.
    """
    generator = torch.Generator().manual_seed(seed)
    n_things = max(1, int(0.7 * n_points) // 3000)
    edge = (n_points / 2.0) ** 0.5
    centre = torch.rand(n_things, 3, generator=generator) * torch.tensor([edge, edge, 40.0])
    thing = torch.randint(n_things, (n_things * 3000,), generator=generator)
    # Surfaces of boxes of 22 voxels: 6 * 22 * 22 is about 3000.
    inside = torch.rand(len(thing), 3, generator=generator) - 0.5
    face = torch.randint(3, (len(thing), 1), generator=generator)
    inside.scatter_(1, face, torch.sign(inside.gather(1, face)) * 0.5)
    position = centre[thing] + spread * 22.0 * inside + 0.3 * torch.randn(len(thing), 3, generator=generator)
    category = 2 + torch.arange(n_things) % (N_CLASSES - 2)
    flat = torch.rand(n_points - len(thing), 3, generator=generator) * torch.tensor([edge, edge, 1.0])
    label = torch.cat([category[thing], torch.randint(2, (len(flat),), generator=generator)])
    logits = torch.randn(len(label), N_CLASSES, generator=generator)
    logits[torch.arange(len(label)), label] += 8.0
    order = torch.randperm(len(label), generator=generator)
    return torch.cat([position, flat])[order], logits[order]


def ours(position: Tensor, logits: Tensor) -> Tensor:
    """Object of every point."""
    scene = torch.zeros(len(position), dtype=torch.long, device=position.device)
    return group_points(position, logits, scene, (0, 1), CONFIG).member


def by_all_pairs(position: np.ndarray) -> Neighbours:
    """By the distances of every point to all points, in blocks of rows."""
    lists: list[np.ndarray] = []
    for start in range(0, len(position), 256):
        away = np.zeros((min(256, len(position) - start), len(position)), dtype=np.float32)
        for axis in range(3):
            away += (position[start : start + 256, axis, None] - position[None, :, axis]) ** 2
        lists += [np.nonzero(row)[0].astype(np.int32) for row in away < CONFIG.radius**2]
    return lists.__getitem__


def by_tree(position: np.ndarray) -> Neighbours:
    """By a k-d tree, whose radius is inclusive."""
    radius = float(np.nextafter(CONFIG.radius, 0.0))
    tree = cKDTree(position)
    return lambda i: np.array(tree.query_ball_point(position[i], radius))


def searched(position: Tensor, logits: Tensor, neighbours: Callable[[np.ndarray], Neighbours]) -> Tensor:
    """Breadth first from point to point of the same class."""
    category = logits.argmax(dim=1).numpy()
    alive = np.nonzero(category > 1)[0]
    category = category[alive]
    near = neighbours(position.numpy()[alive])
    member, number = np.full(len(logits), -1), 0
    seen = np.zeros(len(alive), dtype=bool)
    for start in range(len(alive)):
        if seen[start]:
            continue
        seen[start] = True
        points, waiting = [start], deque([start])
        while waiting:
            i = waiting.popleft()
            close = near(i)
            new = close[(category[close] == category[i]) & ~seen[close]]
            seen[new] = True
            points += new.tolist()
            waiting += new.tolist()
        if len(points) >= CONFIG.min_linked and len(points) > CONFIG.more_than:
            member[alive[points]] = number
            number += 1
    return torch.from_numpy(member)


def seconds(work: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Median time and the result."""
    times = []
    for _ in range(repeats):
        begin, begin_wall = time.process_time(), time.perf_counter()
        result = work()
        if result.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin_wall if result.is_cuda else time.process_time() - begin)
    return median(times), result


def measured(n_points: int, spread: float, args: argparse.Namespace) -> dict[str, float | str | int]:
    """One row: points per second of each way, and how many times faster ours is."""
    position, logits = room(n_points, spread)
    own, members = seconds(lambda: ours(position, logits), args.repeats)
    row: dict[str, float | str | int] = {
        "points": len(position),
        "moved": 1.0 - spread,
        "objects": int(members.max()) + 1,
        "ours_per_s": len(position) / own,
    }
    others: list[tuple[str, Callable[[np.ndarray], Neighbours], int]] = [
        ("all_pairs", by_all_pairs, args.all_pairs_up_to),
        ("tree", by_tree, args.tree_up_to),
    ]
    for name, neighbours, most in others:
        if n_points > most:
            continue
        slow, expected = seconds(lambda n=neighbours: searched(position, logits, n), args.slow_repeats)
        if not torch.equal(expected, members):
            raise SystemExit(f"{name} finds other objects than ours")
        row |= {f"{name}_per_s": len(position) / slow, f"times_{name}": slow / own}
    if torch.cuda.is_available():
        own, _ = seconds(lambda: ours(position.cuda(), logits.cuda()), args.repeats + 1)
        row["ours_cuda_per_s"] = len(position) / own
    return row


def main(argv: list[str] | None = None) -> None:
    """Prints a line per case and writes all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="*", default=[50_000, 200_000, 1_000_000])
    parser.add_argument("--spread", type=float, nargs="*", default=[0.1, 0.5])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow-repeats", type=int, default=1)
    parser.add_argument("--all-pairs-up-to", type=int, default=50_000)
    parser.add_argument("--tree-up-to", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for n_points in args.points:
        for spread in args.spread:
            rows.append(measured(n_points, spread, args))
            print(
                " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items())
            )
    if args.json:
        about = {"repeats": args.repeats, "slow_repeats": args.slow_repeats}
        args.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
