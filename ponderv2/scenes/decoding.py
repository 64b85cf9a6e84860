"""Photographs as tensors, with the pixels that have a depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.scenes.recently_used import RecentlyUsed
from ponderv2.scenes.scene import Frame


@dataclass(frozen=True)
class DecodedFrame:
    """The pictures of one frame, and where a depth was measured."""

    color: UInt8[Tensor, "row column 3"] | None
    """None: the view has depth alone."""
    depth: Float[Tensor, "row column"]
    """Metres; 0 = no measurement."""
    label: Int[Tensor, "row column"] | None
    """Class, -1 = unlabelled."""
    valid: Int[Tensor, " pixel"]
    """Row-major numbers of the pixels with a depth. Those that a mask hides have none."""

    @property
    def n_bytes(self) -> int:
        """Memory that the pictures take."""
        pictures = (self.color, self.depth, self.valid, self.label)
        return sum(one.numel() * one.element_size() for one in pictures if one is not None)


def decode(frame: Frame) -> DecodedFrame:
    """Read the pictures of a frame. Depths that are not finite or not positive become 0."""
    color = frame.read_color() if frame.has_color else None
    depth = frame.read_depth().float()
    label = frame.read_semantic().to(torch.int16) if frame.semantic_path is not None else None
    sizes = {tuple(one.shape[:2]) for one in (color, depth, label) if one is not None}
    if len(sizes) > 1:
        raise SceneError(
            f"the pictures of frame {frame.id} ({frame.depth_path}) differ in size: {sorted(sizes)}",
            fix="prepare the capture again: prepared pictures are registered and of one size",
        )
    depth = torch.where(torch.isfinite(depth) & (depth > 0), depth, torch.zeros_like(depth))
    valid = torch.nonzero(depth.flatten())[:, 0].to(torch.int32)
    return DecodedFrame(color, depth, label, valid)


class FrameDecoder:
    """Decodes photographs and keeps the most recently used ones: decoding is most of the cost of a sample."""

    def __init__(self, megabytes: float) -> None:
        self.memory: RecentlyUsed[DecodedFrame] = RecentlyUsed(megabytes)

    def __call__(self, frame: Frame) -> DecodedFrame:
        """The decoded frame, from memory if it is there."""
        return self.memory.get(str(frame.depth_path), lambda: decode(frame))
