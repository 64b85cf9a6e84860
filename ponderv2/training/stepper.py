"""The module that is wrapped for distributed training: one forward pass to one number."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ponderv2.scenes.batch import Batch
from ponderv2.training.distributed import to_device


class Work:
    """A batch and its random numbers. No dataclass: wrappers would cast its coordinates to half precision."""

    def __init__(self, batch: Batch, generator: torch.Generator, device: torch.device) -> None:
        self.batch = batch
        self.generator = generator
        self.device = device


@dataclass(frozen=True)
class Terms:
    """The numbers of a step, by name; `loss` is the total."""

    total: Tensor
    names: tuple[str, ...]
    values: Tensor


class Stepper(nn.Module):
    """Calls the model and returns (loss with its graph, all loss terms without)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.names: tuple[str, ...] = ()
        """Of the loss terms of the latest step."""

    def forward(self, work: Work) -> tuple[Tensor, Tensor]:
        """Total to call backward on, and the terms in the order of `names`."""
        step = self.model(to_device(work.batch, work.device), work.generator)
        terms = terms_of(step)
        self.names = terms.names
        return terms.total, terms.values


def terms_of(step: Any) -> Terms:
    """Total, every loss term, and every other scalar that the step measured."""
    total = step.losses.total()
    named: dict[str, Tensor] = {"loss": total}
    named |= {entry.name: getattr(step.losses, entry.name) for entry in fields(step.losses)}
    for entry in fields(step):
        value = getattr(step, entry.name)
        if isinstance(value, Tensor) and value.dim() == 0:
            named[entry.name] = value
    return Terms(total, tuple(named), torch.stack([value.detach().float() for value in named.values()]))
