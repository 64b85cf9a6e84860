"""Average precision of KITTI's object benchmark, in the plane ("bird's eye view") and in space.

At 40 positions of recall, for three levels of difficulty, which are the height of the annotated rectangle in
the image, occlusion and truncation. Regions that are not annotated (DontCare) are of no effect, as in the
benchmark: they are rectangles of the image without a box, and rectangles are not evaluated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int, Int64
from numpy import ndarray
from torch import Tensor

from ponderv2.datasets.kitti.labels import BOX_CLASSES, TYPES
from ponderv2.geometry.box_overlap import box_iou, box_rows, plane_iou
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections

DIFFICULTIES = ("easy", "moderate", "hard")
MIN_HEIGHT = (40.0, 25.0, 25.0)
"""Pixels, per difficulty; annotated boxes have to be higher, found ones at least as high."""
MAX_OCCLUDED = (0, 1, 2)
"""0 fully visible, 1 partly, 2 largely occluded, 3 unknown."""
MAX_TRUNCATED = (0.15, 0.3, 0.5)
"""Share that is outside the image."""
MIN_IOU = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
"""In the plane and in space."""
NEIGHBOUR = {"Car": "Van", "Pedestrian": "Person_sitting"}
"""Types that are neither missed nor wrong to find."""
N_POSITIONS = 41
"""Of recall, 0 included, which does not count."""
COUNTS, IGNORED, OTHER = 0, 1, -1


@dataclass(frozen=True)
class KittiOverlaps:
    """What the evaluation needs to know of one frame. Small."""

    category: Int64[ndarray, " predicted"]
    score: Float64[ndarray, " predicted"]
    height: Float64[ndarray, " predicted"]
    """Of the box in the image, pixels."""
    true_type: Int64[ndarray, " true"]
    """Place in `TYPES` of the reader."""
    true_height: Float64[ndarray, " true"]
    truncated: Float64[ndarray, " true"]
    occluded: Int64[ndarray, " true"]
    plane: Float64[ndarray, "predicted true"]
    """IoU."""
    space: Float64[ndarray, "predicted true"]
    """IoU."""


def kitti_overlaps(detections: Detections, boxes: Boxes) -> KittiOverlaps:
    """Overlaps of found and annotated boxes of one frame.

    Args:
        detections: With a field `image_box`, of `with_image_boxes`; classes of the reader, `BOX_CLASSES`.
        boxes: As the reader reads them, with their fields.

    Raises:
        ValueError: a field is missing.
    """
    for what, one, needed in (
        ("found", detections.boxes, ("image_box",)),
        ("annotated", boxes, ("image_box", "truncated", "occluded", "source_category")),
    ):
        lacking = [name for name in needed if name not in one.fields]
        if lacking:
            raise ValueError(f"{what} boxes need the fields {needed}, received none called {lacking}")
    found, true = box_rows(detections.boxes).double(), box_rows(boxes).double()
    return KittiOverlaps(
        category=_numpy(detections.boxes.category).astype(np.int64),
        score=_numpy(detections.score),
        height=_heights(detections.boxes),
        true_type=_numpy(boxes.fields["source_category"]).astype(np.int64),
        true_height=_heights(boxes),
        # Two decimals in the files: 0.3 of float32 would be above the limit.
        truncated=_numpy(boxes.fields["truncated"]).round(4),
        occluded=_numpy(boxes.fields["occluded"]).astype(np.int64),
        plane=_numpy(plane_iou(found, true)),
        space=_numpy(box_iou(found, true)),
    )


def _numpy(values: Tensor) -> Float64[ndarray, "..."]:
    return values.detach().double().cpu().numpy()


def _heights(boxes: Boxes) -> Float64[ndarray, " box"]:
    image_box = _numpy(boxes.fields["image_box"]).reshape(-1, 4)
    # Two decimals in the files.
    return (image_box[:, 3] - image_box[:, 1]).round(4)


@dataclass(frozen=True)
class KittiMetrics:
    """Average precision, 0..1, per class (Car, Pedestrian, Cyclist) and difficulty (easy, moderate, hard).

    NaN for those without annotated boxes.
    """

    plane: Float64[Tensor, "class difficulty"]
    space: Float64[Tensor, "class difficulty"]
    n_true: Int[Tensor, "class difficulty"]
    """Annotated boxes that count."""
    plane_precision: Float64[Tensor, "class difficulty position"]
    """At recall 0, 1/40, ..., 1; the highest one from there on."""
    space_precision: Float64[Tensor, "class difficulty position"]

    def means(self) -> dict[str, float]:
        """ap_plane_easy ... ap_space_hard: over the classes that have a number; NaN where none has."""
        return {
            f"ap_{name}_{difficulty}": float(getattr(self, name)[:, column].nanmean())
            for name in ("plane", "space")
            for column, difficulty in enumerate(DIFFICULTIES)
        }


def kitti_metrics(frames: Sequence[KittiOverlaps]) -> KittiMetrics:
    """Average precision of all frames together.

    For each class and difficulty up to 41 scores are taken, those at which recall passes 0, 1/40, ..., 1. At
    each of them every annotated box in its order takes the free detection that overlaps it most and more than
    `MIN_IOU`; who takes none is missed, and detections that nobody took are wrong. Annotated boxes of a
    neighbouring type or too difficult, and detections that are too low in the image (of any class), are
    ignored: matched to each other or to others they are neither right nor wrong.
    """
    shape = (len(BOX_CLASSES), len(DIFFICULTIES))
    precision = {name: torch.zeros(*shape, N_POSITIONS, dtype=torch.float64) for name in ("plane", "space")}
    n_true = torch.zeros(shape, dtype=torch.int64)
    for number, name in enumerate(BOX_CLASSES):
        for difficulty in range(len(DIFFICULTIES)):
            for measure, table in precision.items():
                chosen = [_candidates(frame, name, difficulty, getattr(frame, measure)) for frame in frames]
                n_true[number, difficulty] = sum(int((one.true_state == COUNTS).sum()) for one in chosen)
                found = _precision(chosen, int(n_true[number, difficulty]))
                table[number, difficulty] = torch.from_numpy(found)
    known = n_true > 0
    plane, space = (
        torch.where(known, table[..., 1:].mean(dim=-1), torch.nan) for table in precision.values()
    )
    return KittiMetrics(plane, space, n_true, precision["plane"], precision["space"])


@dataclass(frozen=True)
class _Candidates:
    """Boxes of one frame that one class and difficulty are concerned with."""

    score: Float64[ndarray, " predicted"]
    state: Int64[ndarray, " predicted"]
    true_state: Int64[ndarray, " true"]
    iou: Float64[ndarray, "predicted true"]
    """0 where it is not enough."""


def _candidates(
    frame: KittiOverlaps, name: str, difficulty: int, iou: Float64[ndarray, "predicted true"]
) -> _Candidates:
    easy = frame.true_height > MIN_HEIGHT[difficulty]
    easy &= frame.occluded <= MAX_OCCLUDED[difficulty]
    easy &= frame.truncated <= MAX_TRUNCATED[difficulty]
    own = frame.true_type == TYPES.index(name)
    neighbour = np.zeros_like(own)
    if name in NEIGHBOUR:
        neighbour = frame.true_type == TYPES.index(NEIGHBOUR[name])
    true_state = np.where(own & easy, COUNTS, np.where(own | neighbour, IGNORED, OTHER))
    low = frame.height < MIN_HEIGHT[difficulty]
    of_class = frame.category == BOX_CLASSES.index(name)
    state = np.where(low, IGNORED, np.where(of_class, COUNTS, OTHER))
    used, used_true = state != OTHER, true_state != OTHER
    chosen = iou[used][:, used_true]
    return _Candidates(
        score=frame.score[used],
        state=state[used],
        true_state=true_state[used_true],
        iou=np.where(chosen > MIN_IOU[name], chosen, 0.0),
    )


def _precision(frames: Sequence[_Candidates], n_true: int) -> Float64[ndarray, " position"]:
    """At the positions of recall, the highest one from there on; 0 beyond the greatest recall."""
    precision = np.zeros(N_POSITIONS)
    right = [_scores_of_right_ones(frame) for frame in frames]
    limits = _limits(np.concatenate([np.zeros(0), *right]), n_true)
    counts = np.zeros((2, len(limits)))
    for frame in frames:
        counts += _right_and_wrong(frame, limits)
    accepted = counts.sum(axis=0)
    found = counts[0] / np.maximum(accepted, 1.0)
    precision[: len(limits)] = np.maximum.accumulate(found[::-1])[::-1]
    return precision


def _scores_of_right_ones(frame: _Candidates) -> Float64[ndarray, " right"]:
    """Each annotated box takes the surest free detection that overlaps it enough."""
    free = np.ones(len(frame.score), dtype=bool)
    found = []
    for true in np.flatnonzero((frame.iou > 0.0).any(axis=0)):
        able = np.flatnonzero(free & (frame.iou[:, true] > 0.0))
        if len(able):
            taken = able[frame.score[able].argmax()]
            free[taken] = False
            if frame.true_state[true] == COUNTS and frame.state[taken] == COUNTS:
                found.append(frame.score[taken])
    return np.array(found, np.float64)


def _limits(scores: Float64[ndarray, " right"], n_true: int) -> Float64[ndarray, " limit"]:
    """Scores at which the recall is nearest to 0, 1/40, 2/40, ...; the last one is always among them."""
    ordered = np.sort(scores)[::-1]
    limits: list[float] = []
    wanted = 0.0
    for number, score in enumerate(ordered.tolist(), start=1):
        is_last = number == len(ordered)
        if not is_last and (number + 1) / n_true - wanted < wanted - number / n_true:
            continue
        limits.append(score)
        wanted += 1.0 / (N_POSITIONS - 1)
    return np.array(limits, np.float64)


def _right_and_wrong(frame: _Candidates, limits: Float64[ndarray, " limit"]) -> Float64[ndarray, "2 limit"]:
    """Detections that are right and wrong, if those below each limit are left out."""
    accepted: Bool[ndarray, "limit predicted"] = frame.score >= limits[:, None]
    free = accepted.copy()
    right = np.zeros(len(limits))
    counts = frame.state == COUNTS
    rows = np.arange(len(limits))
    for true in np.flatnonzero((frame.iou > 0.0).any(axis=0)):
        able = free & (frame.iou[:, true] > 0.0)
        # The greatest overlap among those that count; else the first of the ignored ones.
        rank = np.where(able, np.where(counts, 1.0 + frame.iou[:, true], 0.5), 0.0)
        taken = rank.argmax(axis=1)
        any_taken = able.any(axis=1)
        free[rows[any_taken], taken[any_taken]] = False
        if frame.true_state[true] == COUNTS:
            right += any_taken & counts[taken]
    wrong = (free & counts).sum(axis=1)
    return np.stack([right, wrong.astype(np.float64)])
