"""Classes of all points of whole scenes: one pass, votes of many views, and a cache on disk."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.data.config import PointDataConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.fragments import PLAIN, Fragment, TestView, fragments
from ponderv2.data.preprocess import clipped
from ponderv2.data.sweeps import with_sweeps_behind
from ponderv2.data.voxelise import voxelise
from ponderv2.errors import ResourceError
from ponderv2.evaluation.semantic import confusion_matrix
from ponderv2.io.files import write_bytes
from ponderv2.out_of_memory import in_smaller_parts
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.scene import PointCloud, Scene
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.version import __version__

Predict = Callable[[Batch], Tensor]
"""Scores [point, class] (logits) of the points of a batch."""

POINTS_PER_PASS = 200_000
"""Points up to which fragments are joined into one pass of the model."""


@torch.no_grad()
def vote(
    scene: Scene,
    predict: Predict,
    config: PointDataConfig,
    condition: str,
    views: Sequence[TestView] = PLAIN,
    *,
    points_per_pass: int = POINTS_PER_PASS,
    seen: Callable[[], None] = lambda: None,
) -> Float[Tensor, "point class"]:
    """Sum of the class probabilities of every point of the scene, over views and fragments.

    A point counts as often as it is in a fragment; only its largest class means something. `scene` is as it
    was prepared. `seen` is called after each view. The result is on the CPU.

    Raises ResourceError where memory does not suffice for a single fragment.
    """
    if not views:
        raise ValueError("expected at least one view")
    votes: Tensor | None = None
    n_points = len(scene.cloud)
    scene = with_sweeps_behind(scene, config.sweeps)
    for view in views:
        pieces = fragments(scene, view, config, condition)
        for piece, scores in _scored(pieces, predict, points_per_pass):
            probability = torch.softmax(scores.float(), dim=1)
            if votes is None:
                votes = probability.new_zeros(len(scene.cloud), probability.shape[1])
            # A point is at most once in a fragment, so that no two rows of the result are the same.
            votes.index_add_(0, piece.index.to(votes.device), probability)
        seen()
    assert votes is not None
    return votes[:n_points].cpu()  # points of sweeps come after its own


def _scored(
    pieces: Iterator[Fragment], predict: Predict, points_per_pass: int
) -> Iterator[tuple[Fragment, Tensor]]:
    """Every fragment with its scores; several go through the model together."""
    group: list[Fragment] = []
    for piece in pieces:
        if group and sum(len(one.index) for one in group) + len(piece.index) > points_per_pass:
            yield from _one_pass(group, predict)
            group = []
        group.append(piece)
    if group:
        yield from _one_pass(group, predict)


def _one_pass(group: list[Fragment], predict: Predict) -> Iterator[tuple[Fragment, Tensor]]:
    """The scores of a group of fragments, which is halved when memory runs out."""

    def halves(part: list[Fragment], error: BaseException) -> list[list[Fragment]]:
        if len(part) == 1:
            raise ResourceError(
                f"out of memory with one fragment of {len(part[0].index)} voxels",
                fix="close other programs; CUDA_VISIBLE_DEVICES= computes on the CPU",
            ) from error
        return [part[: len(part) // 2], part[len(part) // 2 :]]

    def score(part: list[Fragment]) -> Tensor:
        return predict(Batch.collate([piece.batch for piece in part]))

    for part, scores in in_smaller_parts(score, [group], halves):
        yield from zip(part, scores.split([len(piece.index) for piece in part]), strict=True)


def halved_classes(
    scene: Scene,
    predict: Predict,
    config: PointDataConfig,
    condition: str,
    views: Sequence[TestView] = PLAIN,
    *,
    seen: Callable[[], None] = lambda: None,
) -> Int[Tensor, " point"]:
    """Class of every point: `vote` of the first point of every half voxel, for all points in it."""
    n_points = len(scene.cloud)
    scene = clipped(with_sweeps_behind(scene, config.sweeps), config)
    halves = voxelise(scene.cloud.coord, config.voxel.size / 2, config.voxel.order)
    joined = config.model_copy(update={"sweeps": None})
    votes = vote(scene.take(halves.index), predict, joined, condition, views, seen=seen)
    return votes.argmax(dim=1)[halves.inverse[:n_points]]


@torch.no_grad()
def predicted_classes(
    model: SegmentationModel,
    data: LabelledDataset,
    index: int,
    views: Sequence[TestView] = (),
    seen: Callable[[], None] = lambda: None,
    halved: bool = False,
) -> Int[Tensor, " point"]:
    """Class of every point of a scene, which needs no labels. The model must be in evaluation mode.

    One pass over one point per voxel; with `views` every fragment of every view votes, and `seen` is called
    after each view; with `halved` of the first point of every half voxel, for all points there.
    """
    device, scene = next(model.parameters()).device, data.scene(index)

    def predict(batch: Batch) -> Tensor:
        return model.logits(batch.to(device))

    if views and halved:
        return halved_classes(scene, predict, data.config, data.condition, views, seen=seen)
    if views:
        return vote(scene, predict, data.config, data.condition, views, seen=seen).argmax(dim=1)
    whole = data.whole(scene)
    return predict(whole.batch).argmax(dim=1).cpu()[whole.voxels.inverse]


def confusion_of_scenes(
    model: SegmentationModel,
    data: LabelledDataset,
    indices: Iterable[int],
    views: Sequence[TestView] = (),
) -> Int[Tensor, "true_class predicted_class"]:
    """Over all points of the scenes. On the model's device, so that processes can add them up.

    Raises SceneError for scenes without labels.
    """
    n_classes = model.classes_of(data.condition)
    total = torch.zeros(n_classes, n_classes, dtype=torch.int64)
    for index in indices:
        truth = data.labelled_scene(index).cloud.labels[data.label_field].long()
        total += confusion_matrix(predicted_classes(model, data, index, views), truth, n_classes)
    return total.to(next(model.parameters()).device)


DIGITS = 20


def digest_of_points(cloud: PointCloud) -> str:
    """SHA-256 of what a model sees of the points; their labels are ignored."""
    digest = hashlib.sha256()
    for name, array in cloud.arrays.items():
        if name in cloud.labels:
            continue
        digest.update(str(tuple(array.shape)).encode())
        digest.update(array.contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class PredictionCache:
    """A folder of predictions that were made under the same conditions."""

    folder: Path

    @staticmethod
    def of(root: Path, checkpoint: str, settings: dict[str, Any]) -> PredictionCache:
        """The folder for a checkpoint (its digest) and settings (plain values)."""
        conditions = {"checkpoint": checkpoint, "program": __version__, **settings}
        text = json.dumps(conditions, sort_keys=True, default=str)
        return PredictionCache(root / hashlib.sha256(text.encode()).hexdigest()[:DIGITS])

    def read(self, scene: str, cloud: PointCloud) -> Int[Tensor, " point"] | None:
        """Class of every point; None where nothing usable was kept."""
        try:
            classes = np.load(self._path(scene, cloud), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        fits = classes.shape == (len(cloud),) and classes.dtype.kind in "iu"
        return torch.from_numpy(classes.astype(np.int64)) if fits else None

    def write(self, scene: str, cloud: PointCloud, classes: Int[Tensor, " point"]) -> None:
        """Keeps the class of every point, whole or not at all. Raises OutputError."""
        stream = io.BytesIO()
        np.save(stream, classes.numpy().astype(np.int16))
        write_bytes(self._path(scene, cloud), stream.getvalue())

    def _path(self, scene: str, cloud: PointCloud) -> Path:
        return self.folder / f"{scene.replace('/', '_')}-{digest_of_points(cloud)[:DIGITS]}.npy"
