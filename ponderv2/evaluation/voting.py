"""Segment a scene several times and let the results vote: the published test-time procedure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.data.config import PointDataConfig
from ponderv2.data.fragments import PLAIN, Fragment, TestView, fragments
from ponderv2.errors import ResourceError, is_out_of_memory
from ponderv2.scenes.batch import Batch, collate
from ponderv2.scenes.scene import Scene

Predict = Callable[[Batch], Tensor]
"""Scores [point, class] (logits) of the points of a batch."""

POINTS_PER_PASS = 200_000
"""Fragments are joined into one pass of the model until there are so many points."""


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
    return votes.cpu()


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
    """The scores of a group, which is halved for as long as memory does not suffice."""
    waiting = [group]
    while waiting:
        part = waiting.pop()
        try:
            scores = predict(collate([piece.batch for piece in part]))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise ResourceError(
                    f"not enough memory for a fragment of {len(part[0].index)} voxels",
                    fix="close other programs; CUDA_VISIBLE_DEVICES= computes on the CPU",
                ) from error
            torch.cuda.empty_cache()
            waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
            continue
        yield from zip(part, scores.split([len(piece.index) for piece in part]), strict=True)
