"""Segment a scene several times and let the results vote: the published test-time procedure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.scenes.batch import SceneBatch
from ponderv2.scenes.config import PointDataConfig
from ponderv2.scenes.fragments import PLAIN, TestView, fragments
from ponderv2.scenes.scene import Scene

Predict = Callable[[SceneBatch], Tensor]
"""Scores [point, class] (logits) of a batch of one scene."""


@torch.no_grad()
def vote(
    scene: Scene,
    predict: Predict,
    config: PointDataConfig,
    condition: str,
    views: Sequence[TestView] = PLAIN,
) -> Float[Tensor, "point class"]:
    """Sum of the class probabilities of every point of the scene, over views and fragments.

    A point counts as often as it is in a fragment; only its largest class means something. `scene` is as it
    was prepared. The result is on the CPU.
    """
    if not views:
        raise ValueError("expected at least one view")
    votes: Tensor | None = None
    for view in views:
        for fragment in fragments(scene, view, config, condition):
            probability = torch.softmax(predict(fragment.batch).float(), dim=1).cpu()
            if votes is None:
                votes = torch.zeros(len(scene.cloud), probability.shape[1])
            # A point is at most once in a fragment, so that plain indexed addition is exact.
            votes[fragment.index] += probability
    assert votes is not None
    return votes
