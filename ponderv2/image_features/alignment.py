"""Where in the image the cells of a network's maps are centred, and maps of several layers on one grid.

A convolution of kernel k, stride s and padding p turns cells centred at `start + i step` into cells centred
at `start + ((k - 1) / 2 - p) step + i s step`: a layer behind five strided convolutions with symmetric
padding is half a cell off the even partition of its image, and one with TensorFlow's padding half a cell the
other way. Pixel centres are at integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Centres:
    """Of the cells along one axis: cell i is centred at pixel `start + i step`."""

    start: float
    step: float

    @staticmethod
    def even(n_pixels: int, n_cells: int) -> Centres:
        """Cells that partition the axis evenly, as patches do."""
        step = n_pixels / n_cells
        return Centres((step - 1.0) / 2.0, step)


class CentreTrace:
    """Follows a forward pass through its convolutions and poolings; a context manager.

    Residual branches are aligned with the main path, so what counts is the size of a map: of several ways
    from one size to another the one with the largest kernel decides.
    """

    def __init__(self, module: nn.Module, size: tuple[int, int]) -> None:
        """`size`: rows and columns of the images."""
        self.size = size
        self._module = module
        self._known = [{length: (Centres(0.0, 1.0), 0)} for length in size]
        self._hooks: list[Any] = []

    def __enter__(self) -> CentreTrace:
        for one in self._module.modules():
            if isinstance(one, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                self._hooks.append(one.register_forward_hook(self._seen))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def of(self, n_cells: tuple[int, int]) -> tuple[Centres, Centres]:
        """Of a map with these rows and columns; even ones where the way to it was not followed."""
        found = [
            known[count][0] if count in known else Centres.even(length, count)
            for known, count, length in zip(self._known, n_cells, self.size, strict=True)
        ]
        return found[0], found[1]

    def _seen(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        for axis in (0, 1):
            before, after = inputs[0].shape[2 + axis], output.shape[2 + axis]
            known, kernel = self._known[axis], _extent(layer, axis)
            if before == after or before not in known or known.get(after, (None, 0))[1] >= kernel:
                continue
            start, step = known[before][0].start, known[before][0].step
            stride = _number(getattr(layer, "stride", 1), axis)
            shift = (kernel - 1) / 2.0 - _padding_before(layer, axis, before, after, kernel, stride)
            known[after] = (Centres(start + shift * step, stride * step), kernel)


def _extent(layer: nn.Module, axis: int) -> int:
    """Of the kernel, with the gaps of a dilated one."""
    dilation = _number(getattr(layer, "dilation", 1), axis)
    return (_number(getattr(layer, "kernel_size", 1), axis) - 1) * dilation + 1


def _padding_before(layer: nn.Module, axis: int, before: int, after: int, kernel: int, stride: int) -> int:
    """As the layer states it; of one that pads in code of its own the smaller half of what it must add."""
    stated = getattr(layer, "padding", 0)
    known = 0 if isinstance(stated, str) else _number(stated, axis)
    return known or max((after - 1) * stride + kernel - before, 0) // 2


def _number(value: Any, axis: int) -> int:
    return int(value[axis] if isinstance(value, tuple | list) else value)


def on_grid(
    values: Float[Tensor, "image channel row column"],
    centres: tuple[Centres, Centres],
    size: tuple[int, int],
    grid: tuple[int, int],
) -> Float[Tensor, "image channel grid_row grid_column"]:
    """A map on a grid that partitions the image evenly: bilinear, averaged where the grid is coarser.

    Args:
        values: Output of a layer.
        centres: Of its rows and columns.
        size: Rows and columns of the image that the network received.
        grid: Rows and columns wanted.
    """
    rows, columns = (
        _weights(of, n_cells, n_pixels, wanted).to(values)
        for of, n_cells, n_pixels, wanted in zip(centres, values.shape[2:], size, grid, strict=True)
    )
    return rows @ values @ columns.T


def _weights(centres: Centres, n_cells: int, n_pixels: int, wanted: int) -> Float[Tensor, "wanted cell"]:
    """Rows that sum to 1: a tent around the centre of each wanted cell, no narrower than one of the map."""
    even = Centres.even(n_pixels, wanted)
    pixel = even.start + even.step * torch.arange(wanted, dtype=torch.float64)
    place = ((pixel - centres.start) / centres.step).clamp(0.0, n_cells - 1.0)
    width = max(1.0, even.step / centres.step)
    tent = 1.0 - (place[:, None] - torch.arange(n_cells, dtype=torch.float64)).abs() / width
    tent = tent.clamp(min=0.0)
    return tent / tent.sum(dim=1, keepdim=True)
