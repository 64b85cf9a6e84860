"""Convolutional networks on visible pixels alone: what is hidden is exactly 0 after every layer.

As in SparK (Tian et al. 2023): the mask, at each resolution, multiplies the results of convolutions and
pooling; normalisations see visible positions only, so that the statistics of batches are theirs too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional as F

PER_POSITION = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.Linear, nn.LayerNorm, nn.GroupNorm)


class VisibleOnly:
    """Hooks on the layers of a network that do nothing until `hiding`."""

    def __init__(self, network: nn.Module) -> None:
        self._visible: Tensor | None = None
        self._at: dict[tuple[int, int], Tensor] = {}
        self._shapes: dict[int, torch.Size] = {}
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_pre_hook(self._before_batch_norm)
                module.register_forward_hook(self._after_batch_norm)
            elif isinstance(module, PER_POSITION):
                module.register_forward_hook(self._masked)

    @contextmanager
    def hiding(self, visible: Bool[Tensor, "view row column"]) -> Iterator[None]:
        """Within it the network sees these pixels alone; the caller has set the others to 0.

        Blocks of hidden pixels are to be multiples of the stride of the network in size.
        """
        self._visible = visible
        try:
            yield
        finally:
            self._visible = None
            self._at.clear()
            self._shapes.clear()

    def _mask(self, size: tuple[int, int]) -> Bool[Tensor, "view row column"]:
        """At a resolution."""
        assert self._visible is not None
        if size not in self._at:
            self._at[size] = F.interpolate(self._visible[:, None].float(), size)[:, 0] > 0
        return self._at[size]

    def _masked(self, module: nn.Module, _: Any, output: Tensor) -> Tensor | None:
        if self._visible is None or output.dim() != 4:
            return None
        # timm's linear layers have the channel last; its LayerNorm2d is a LayerNorm with the channel first.
        last = isinstance(module, nn.Linear) or (
            isinstance(module, nn.LayerNorm) and not type(module).__name__.endswith("2d")
        )
        size = (output.shape[1], output.shape[2]) if last else (output.shape[2], output.shape[3])
        if size == (1, 1):  # pooled over the image
            return None
        mask = self._mask(size)
        return output * (mask[..., None] if last else mask[:, None]).to(output.dtype)

    def _before_batch_norm(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        values = inputs[0]
        if self._visible is None or values.dim() != 4 or values.shape[2:] == (1, 1):
            return None
        self._shapes[id(module)] = values.shape
        mask = self._mask((values.shape[2], values.shape[3]))
        return (values.permute(0, 2, 3, 1)[mask][:, :, None, None],)

    def _after_batch_norm(self, module: nn.Module, _: Any, output: Tensor) -> Tensor | None:
        shape = self._shapes.pop(id(module), None)
        if shape is None:
            return None
        mask = self._mask((shape[2], shape[3]))
        dense = output.new_zeros(shape[0], shape[2], shape[3], output.shape[1])
        dense = dense.index_put((mask,), output[:, :, 0, 0])
        return dense.permute(0, 3, 1, 2).contiguous()
