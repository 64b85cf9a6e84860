"""Time of non-maximum suppression: ours, and one box that stays after the other against all that are left.

The boxes are either a detector's, 100 objects with many proposals each, or spread over a street. The pairwise
way compares with NumPy and, where boxes are turned, with shapely, whose operations are vectorised.
Both have to keep the same boxes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import shapely
import torch
from numpy import ndarray
from torch import Tensor

from benchmarks.timing import side_by_side
from ponderv2.geometry.box_overlap import box_hulls
from ponderv2.geometry.boxes import CORNERS
from ponderv2.geometry.suppression import box_nms, circle_nms, hull_nms, plane_nms

CAR = (4.5, 1.9, 1.6)
EXTENT = 200.0
"""Edge of the square that the boxes lie in, metres."""
RADIUS, PLANE_IOU, BOX_IOU, HULL_IOU = 2.0, 0.2, 0.5, 0.25
"""Of CenterPoint, of its rotated suppression, of FCAF3D and of VoteNet."""


def scene(n_boxes: int, kind: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of boxes in double precision, and scores."""
    generator = torch.Generator().manual_seed(seed)
    n_centers = 100 if kind == "proposals" else n_boxes
    center = torch.rand(n_centers, 3, generator=generator) * torch.tensor([EXTENT, EXTENT, 2.0])
    yaw = 6.0 * torch.rand(n_centers, 1, generator=generator)
    which = torch.arange(n_boxes) % n_centers
    noise = 0.5 if kind == "proposals" else 0.0
    center = center[which] + noise * torch.randn(n_boxes, 3, generator=generator)
    yaw = yaw[which] + 0.2 * noise * torch.randn(n_boxes, 1, generator=generator)
    size = torch.tensor(CAR) * (0.9 + 0.2 * torch.rand(n_boxes, 3, generator=generator))
    rows = torch.cat([center, size, yaw], dim=1).double()
    return rows, torch.rand(n_boxes, generator=generator)


def ours(kind: str, boxes: Tensor, score: Tensor) -> Tensor:
    """Boxes that stay."""
    match kind:
        case "plane":
            return plane_nms(boxes, score, PLANE_IOU)
        case "box":
            return box_nms(boxes, score, BOX_IOU)
        case "hull":
            return hull_nms(boxes, score, HULL_IOU)
        case _:
            return circle_nms(boxes, score, RADIUS)


def pairwise(kind: str, boxes: Tensor, score: Tensor) -> Tensor:
    """Boxes that stay, one after the other."""
    rows, hulls = boxes.numpy(), box_hulls(boxes).numpy()
    polygons: Any = shapely.polygons(_corners(rows))
    area = rows[:, 3] * rows[:, 4]

    def suppressed(one: int, rest: ndarray) -> ndarray:
        if kind == "circle":
            return ((rows[rest, :2] - rows[one, :2]) ** 2).sum(axis=1) <= RADIUS**2
        if kind == "hull":
            low, high = (
                np.maximum(hulls[rest, 0], hulls[one, 0]),
                np.minimum(hulls[rest, 1], hulls[one, 1]),
            )
            shared = (high - low).clip(min=0.0).prod(axis=1)
            volume = (hulls[:, 1] - hulls[:, 0]).prod(axis=1)
            return shared > HULL_IOU * (volume[rest] + volume[one] - shared)
        shared = shapely.area(shapely.intersection(polygons[rest], polygons[one]))
        if kind == "plane":
            return shared > PLANE_IOU * (area[rest] + area[one] - shared)
        top = rows[:, 2] + rows[:, 5] / 2
        low = np.maximum(top[rest] - rows[rest, 5], top[one] - rows[one, 5])
        shared = shared * (np.minimum(top[rest], top[one]) - low).clip(min=0.0)
        return shared > BOX_IOU * (area[rest] * rows[rest, 5] + area[one] * rows[one, 5] - shared)

    rest = np.argsort(-score.numpy(), kind="stable")
    kept = []
    while len(rest):
        one, rest = int(rest[0]), rest[1:]
        kept.append(one)
        rest = rest[~suppressed(one, rest)]
    return torch.tensor(kept)


def _corners(rows: ndarray) -> ndarray:
    flat = np.array(CORNERS) / 2 * rows[:, None, 3:5]
    cosine, sine = np.cos(rows[:, 6:]), np.sin(rows[:, 6:])
    x = flat[..., 0] * cosine - flat[..., 1] * sine
    y = flat[..., 0] * sine + flat[..., 1] * cosine
    return rows[:, None, :2] + np.stack([x, y], axis=-1)


def measured(kind: str, layout: str, args: argparse.Namespace) -> dict[str, float | str | int]:
    """One row: seconds of both ways, and how many times faster ours is."""
    boxes, score = scene(args.boxes, layout)
    kept = ours(kind, boxes, score)
    if not torch.equal(kept, pairwise(kind, boxes, score)):
        raise SystemExit(f"{kind}, {layout}: the two ways keep different boxes")
    runs: list[Callable[[], Tensor]] = [
        lambda: ours(kind, boxes, score),
        lambda: pairwise(kind, boxes, score),
    ]
    own, other = (median(times) for times in side_by_side(runs, args.repeats, process_time))
    row: dict[str, float | str | int] = {"kind": kind, "layout": layout, "boxes": args.boxes}
    return row | {"kept": len(kept), "ours_s": own, "pairwise_s": other, "ratio": other / own}


def main(argv: list[str] | None = None) -> None:
    """Prints a line per case and writes all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="*", default=["plane", "box", "hull", "circle"])
    parser.add_argument("--layouts", nargs="*", default=["proposals", "street"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for layout in args.layouts:
        for kind in args.kinds:
            rows.append(measured(kind, layout, args))
            print(
                " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items())
            )
    if args.json:
        args.json.write_text(json.dumps({"repeats": args.repeats, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
