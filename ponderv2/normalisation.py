"""Batch normalisation whose statistics are those of the whole batch, also when processes share it."""

from __future__ import annotations

from torch import Tensor, nn


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Normalises axis 1 of `[n, channel, ...]`; state names and numerics of `torch.nn.BatchNorm1d`."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [n, channel, ...], got shape {tuple(input.shape)}")
