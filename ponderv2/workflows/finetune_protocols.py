"""The protocols of fine-tuning, which part of the model each trains, and what its head starts from."""

from __future__ import annotations

from typing import Any

from ponderv2.errors import PresetError
from ponderv2.tasks.task import FitHead, Task
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.workflows.config import FinetuneConfig


def with_protocol(config: FinetuneConfig, task: Task[Any]) -> FinetuneConfig:
    """The settings as the protocol wants them; its encoder is known.

    linear: everything is frozen, the head is fitted to convergence and no step is taken. decoder: the
    encoding stages are frozen, the decoding stages and the head are trained. full: as the settings say.

    Raises:
        PresetError: the task has no head that can be fitted; the encoder has no decoding stages.
    """
    kind = config.model.kind
    if task.fit_head is None and config.protocol == "linear":
        raise PresetError(f"there is no linear probe of '{kind}'", fix="--protocol decoder or full")
    if task.fit_head is None and config.model.head_init == "probe":
        raise PresetError(f"the head of '{kind}' cannot start as a probe", fix="--set model.head_init=random")
    if config.protocol == "full":
        return config
    if config.protocol == "linear":
        frozen = {"freeze_encoder": True, "train_decoder": False, "head_init": "probe"}
        training = config.training.model_copy(update={"steps": 0})
        return config.model_copy(
            update={"model": config.model.model_copy(update=frozen), "training": training}
        )
    encoder = config.model.encoder
    if encoder is None or not any(stage.decodes for stage in encoder.stages):
        raise PresetError(
            f"the encoder '{'' if encoder is None else encoder.kind}' has no decoder to train",
            fix="--protocol linear or full",
        )
    frozen = {"freeze_encoder": True, "train_decoder": True}
    return config.model_copy(update={"model": config.model.model_copy(update=frozen)})


def fit_of_start(
    config: FinetuneConfig, task: Task[Any], checkpoint: OpenCheckpoint | None
) -> FitHead | None:
    """How the head is fitted before the first step; None where it starts as it was drawn or read."""
    match config.model.head_init:
        case "probe":
            return task.fit_head
        case "random":
            return None
        case "auto":
            has_none = checkpoint is not None and not task.brings_head(checkpoint.weights)
            return task.fit_head if has_none else None
