"""Optimiser and learning-rate schedule. The schedule is a pure function of the step."""

from __future__ import annotations

import math
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


def build_optimiser(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """The optimiser over all trained parameters, one group per rate factor.

    Parameters named in `config.frozen` are frozen here. ValueError if nothing is left to train.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name.startswith(config.frozen or ("\0",)):
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            groups.setdefault(_rate_factor(name, config.rate_factors), []).append(parameter)
    if not groups:
        raise ValueError(f"no parameter is left to train: frozen = {list(config.frozen)}")
    settings = config.optimiser
    listed = [{"params": params, "rate": settings.rate * factor} for factor, params in groups.items()]
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


def _rate_factor(name: str, factors: dict[str, float]) -> float:
    prefixes = [prefix for prefix in factors if name.startswith(prefix)]
    return factors[max(prefixes, key=len)] if prefixes else 1.0


def set_lr(optimiser: Optimizer, lr: ScheduleValues) -> float:
    """Writes rate and momentum of the coming step into the optimiser; returns the largest rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["rate"] * lr.factor
        if lr.momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (lr.momentum, group["betas"][1])
        else:
            group["momentum"] = lr.momentum
    return max(group["lr"] for group in optimiser.param_groups)


def load_optimiser(optimiser: Optimizer, state: dict[str, Any]) -> None:
    """Restores momenta and counts; the rates stay those of the settings. Raises CheckpointError."""
    rates = [group["rate"] for group in optimiser.param_groups]
    try:
        optimiser.load_state_dict(state)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"the state of the optimiser does not fit the settings: {error}") from error
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["rate"] = rate


def set_train_mode(model: nn.Module, frozen: tuple[str, ...]) -> None:
    """Training mode, except for frozen modules, whose running statistics stay."""
    model.train()
    if not frozen:
        return
    for name, module in model.named_modules():
        if f"{name}.".startswith(frozen):
            module.eval()
