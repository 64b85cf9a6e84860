"""Images for an encoder, resized and augmented; intrinsics and depth follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from ponderv2.data.config import ImageAugmentConfig, ImageInputConfig
from ponderv2.geometry.intrinsics import scaled_intrinsics

GREY = (0.299, 0.587, 0.114)
"""Luminance of the channels (ITU-R BT.601)."""


@dataclass(frozen=True)
class InputImage:
    """One image as an encoder receives it."""

    color: Float[Tensor, "3 row column"]
    """0..1."""
    intrinsics: Float[Tensor, "3 3"]
    """Double precision."""
    depth: Float[Tensor, "row column"] | None = None
    """Along the optical axis, metres; 0 = no measurement."""


def input_image(
    color: UInt8[Tensor, "row column 3"] | Float[Tensor, "row column 3"],
    intrinsics: Float[Tensor, "3 3"],
    depth: Float[Tensor, "depth_row depth_column"] | None,
    config: ImageInputConfig,
    generator: torch.Generator | None = None,
) -> InputImage:
    """An image of colours 0..255 at the size of the settings; augmented where there is a generator."""
    augment = config.augment if generator is not None else None
    zoom = 1.0
    if augment is not None and generator is not None:
        zoom = _uniform(augment.zoom, generator)
    size = (max(config.height, round(config.height * zoom)), max(config.width, round(config.width * zoom)))
    image = color.permute(2, 0, 1)[None].float() / 255.0
    scale = size[1] / color.shape[1], size[0] / color.shape[0]
    whole = InputImage(
        F.interpolate(image, size, mode="bilinear", antialias=True)[0],
        torch.from_numpy(scaled_intrinsics(intrinsics.double().numpy(), *scale)),
        None if depth is None else F.interpolate(depth[None, None], size, mode="nearest-exact")[0, 0],
    )
    if augment is None or generator is None:
        return whole
    top, left = (
        int(torch.randint(large - small + 1, (), generator=generator))
        for large, small in zip(size, (config.height, config.width), strict=True)
    )
    made = cropped(whole, top, left, config.height, config.width)
    if float(torch.rand((), generator=generator)) < augment.flip:
        made = mirrored(made)
    return replace(made, color=_recoloured(made.color, augment, generator))


def cropped(image: InputImage, top: int, left: int, height: int, width: int) -> InputImage:
    """A part of an image."""
    rows, columns = slice(top, top + height), slice(left, left + width)
    shift = torch.tensor([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]], dtype=torch.float64)
    depth = None if image.depth is None else image.depth[rows, columns]
    return InputImage(image.color[:, rows, columns], shift @ image.intrinsics, depth)


def mirrored(image: InputImage) -> InputImage:
    """Left and right exchanged: the focal length along x changes its sign."""
    width = image.color.shape[2]
    flip = torch.tensor([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    depth = None if image.depth is None else image.depth.flip(1)
    return InputImage(image.color.flip(2), flip @ image.intrinsics, depth)


def _recoloured(
    color: Float[Tensor, "3 row column"], config: ImageAugmentConfig, generator: torch.Generator
) -> Float[Tensor, "3 row column"]:
    """Brightness, contrast and saturation times random factors, within 0..1."""
    brightness, contrast, saturation = (
        _uniform((1.0 - most, 1.0 + most), generator)
        for most in (config.brightness, config.contrast, config.saturation)
    )
    color = color * brightness
    color = (color - color.mean()) * contrast + color.mean()
    grey = (color * torch.tensor(GREY)[:, None, None]).sum(0, keepdim=True)
    return (grey + (color - grey) * saturation).clamp(0.0, 1.0)


def _uniform(limits: tuple[float, float], generator: torch.Generator) -> float:
    low, high = limits
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
