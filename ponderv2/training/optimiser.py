"""Optimiser and learning-rate schedule. The schedule is a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from ponderv2.errors import CheckpointError
from ponderv2.training.config import (
    AdamwConfig,
    ConstantConfig,
    OneCycleConfig,
    PolyConfig,
    SgdConfig,
    TrainingConfig,
)


@dataclass(frozen=True)
class ScheduleValues:
    """Learning rate and momentum of one step."""

    factor: float
    """Fraction of the largest learning rate."""
    momentum: float | None
    """None: that of the optimiser's settings."""


def lr_at(step: int, steps: int, config: OneCycleConfig | PolyConfig | ConstantConfig) -> ScheduleValues:
    """Rate and momentum of a step, 0 <= step < steps."""
    match config:
        case OneCycleConfig():
            return _one_cycle(step, steps, config)
        case PolyConfig():
            return ScheduleValues((1.0 - step / (steps + 1)) ** config.power, None)
        case ConstantConfig():
            return ScheduleValues(min(1.0, (step + 1) / (config.warmup_steps + 1)), None)
        case _:
            assert_never(config)


def _one_cycle(step: int, steps: int, config: OneCycleConfig) -> ScheduleValues:
    """Smith and Topin 2018, with the half cosines and corner steps of torch's OneCycleLR."""
    top = config.warmup * steps - 1.0
    start = 1.0 / config.divide_start
    low, high = config.low_momentum, config.high_momentum
    if step <= top:
        share = step / top if top > 0 else 1.0
        factor, momentum = _cosine(start, 1.0, share), _cosine(high, low, share)
    else:
        # Runs shorter than 1 / warmup steps have no rise; one that ends at the top has no fall.
        share = (step - top) / (steps - 1 - top) if steps - 1 > top else 1.0
        factor, momentum = _cosine(1.0, start / config.divide_end, share), _cosine(low, high, share)
    return ScheduleValues(factor, momentum if config.cycle_momentum else None)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))


@dataclass(frozen=True)
class _GroupKey:
    """What the parameters of a group have in common."""

    factor: float
    """On the learning rate."""
    warmup: float = 0.0
    """Share of the steps in which their rate rises from 0."""
    decays: bool = True


def build_optimiser(
    model: nn.Module, config: TrainingConfig, encoder_stages: Sequence[tuple[str, ...]] = ()
) -> Optimizer:
    """The optimiser over all trained parameters, one group for all that are treated alike.

    Parameters named in `config.frozen` are frozen here. `encoder_stages`: beginnings of the names of the
    encoder's parameters, stage by stage. ValueError if nothing is left to train.
    """
    groups: dict[_GroupKey, list[nn.Parameter]] = {}
    settings = config.optimiser
    for name, parameter in model.named_parameters():
        if name.startswith(config.frozen or ("\0",)):
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            decays = settings.decay_norms or parameter.ndim > 1
            factor = _rate_factor(name, config.rate_factors)
            stage = _stage(name, encoder_stages)
            key = _GroupKey(factor, decays=decays)
            if stage is not None:
                decay = settings.layer_decay ** (len(encoder_stages) - stage)
                key = _GroupKey(factor * settings.encoder_rate * decay, settings.encoder_warmup, decays)
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ValueError(f"no parameter is left to train: frozen = {list(config.frozen)}")
    listed = [
        {
            "params": params,
            "rate": settings.rate * key.factor,
            **({"warmup": key.warmup} if key.warmup else {}),
            **({} if key.decays else {"weight_decay": 0.0}),
        }
        for key, params in groups.items()
    ]
    match settings:
        case SgdConfig():
            return SGD(
                listed,
                lr=settings.rate,
                momentum=settings.momentum,
                nesterov=settings.nesterov and settings.momentum > 0,
                weight_decay=settings.weight_decay,
            )
        case AdamwConfig():
            return AdamW(
                listed,
                lr=settings.rate,
                betas=(settings.beta1, settings.beta2),
                eps=settings.epsilon,
                weight_decay=settings.weight_decay,
            )
        case _:
            assert_never(settings)


def _stage(name: str, stages: Sequence[tuple[str, ...]]) -> int | None:
    """Which stage of the encoder a parameter belongs to; None for the rest of the model."""
    return next((number for number, stage in enumerate(stages) if name.startswith(stage)), None)


def _rate_factor(name: str, factors: dict[str, float]) -> float:
    prefixes = [prefix for prefix in factors if name.startswith(prefix)]
    return factors[max(prefixes, key=len)] if prefixes else 1.0


def set_lr(optimiser: Optimizer, lr: ScheduleValues, progress: float = 1.0) -> float:
    """Writes rate and momentum of the coming step into the optimiser; returns the largest rate.

    `progress`: share of the steps that are done after it, for groups with a warm-up of their own.
    """
    for group in optimiser.param_groups:
        group["lr"] = group["rate"] * lr.factor
        if "warmup" in group:
            group["lr"] *= min(1.0, progress / group["warmup"])
        if lr.momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (lr.momentum, group["betas"][1])
        else:
            group["momentum"] = lr.momentum
    return max(group["lr"] for group in optimiser.param_groups)


def load_optimiser(optimiser: Optimizer, state: dict[str, Any]) -> None:
    """Restores momenta and counts; the rates stay those of the settings. Raises CheckpointError."""
    kept = [
        {key: group[key] for key in ("rate", "warmup") if key in group} for group in optimiser.param_groups
    ]
    try:
        optimiser.load_state_dict(state)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"the state of the optimiser does not fit the settings: {error}") from error
    for group, own in zip(optimiser.param_groups, kept, strict=True):
        group.pop("warmup", None)
        group.update(own)


def set_train_mode(model: nn.Module, frozen: tuple[str, ...]) -> None:
    """Training mode, except for frozen modules, whose running statistics stay."""
    model.train()
    if not frozen:
        return
    for name, module in model.named_modules():
        if f"{name}.".startswith(frozen):
            module.eval()
