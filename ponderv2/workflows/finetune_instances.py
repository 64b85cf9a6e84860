"""Fine-tuning for instance segmentation: data, checks and validation."""

from __future__ import annotations

from typing import Any, NoReturn

from ponderv2.errors import PresetError
from ponderv2.workflows.finetune_task import Task


def _not_there(*_: Any) -> NoReturn:
    raise PresetError("instance segmentation cannot be trained yet", fix="--set model.kind=segmentation")


TASK = Task("instances", _not_there, _not_there, _not_there, best_metric="ap50")
