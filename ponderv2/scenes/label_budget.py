"""Few labels: which scenes and which points keep theirs."""

from __future__ import annotations

from dataclasses import replace

import torch

from ponderv2.errors import SceneError
from ponderv2.randomness import generator_of
from ponderv2.scenes.config import LabelBudgetConfig
from ponderv2.scenes.scene import Scene


def budget_scenes(names: tuple[str, ...], config: LabelBudgetConfig) -> tuple[str, ...]:
    """The labelled scenes, in the order of `names`. More of them are a superset of fewer.

    Raises:
        SceneError: a named scene does not exist, or there are fewer scenes than asked for.
    """
    match config.scenes:
        case None:
            return names
        case int(number):
            if number > len(names):
                raise SceneError(
                    f"{number} labelled scenes asked for, {len(names)} there", fix="prepare more scenes"
                )
            order = torch.randperm(len(names), generator=generator_of("labelled scenes", config.seed))
            return tuple(names[i] for i in sorted(order[:number].tolist()))
        case chosen:
            missing = [name for name in chosen if name not in names]
            if missing:
                raise SceneError(
                    f"no scene '{missing[0]}' in this split", fix=f"one of: {', '.join(names[:5])}"
                )
            return tuple(name for name in names if name in chosen)


def spend_label_budget(scene: Scene, config: LabelBudgetConfig, label_field: str) -> Scene:
    """All labels but those of `points_per_scene` random labelled points become -1.

    The choice depends on the seed of the budget and the name of the scene only; more points are a superset of
    fewer. The field `labelled` (1 or 0) marks the chosen points for every later step that drops points.
    """
    if config.points_per_scene is None:
        return scene
    segment = scene.cloud.labels[label_field]
    candidates = torch.nonzero(segment >= 0)[:, 0]
    generator = generator_of("labelled points", config.seed, scene.name)
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[: config.points_per_scene]]
    labelled = torch.zeros(len(segment), dtype=torch.long)
    labelled[chosen] = 1
    kept = torch.where(labelled > 0, segment, torch.full_like(segment, -1))
    labels = {**scene.cloud.labels, label_field: kept, "labelled": labelled}
    return replace(scene, cloud=replace(scene.cloud, labels=labels))
