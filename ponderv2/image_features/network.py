"""A frozen 2D network: images to maps of several layers side by side on one grid, and where it comes from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.errors import PresetError
from ponderv2.image_features.alignment import Centres, CentreTrace, on_grid

UNKNOWN = "unknown: see the card of the model"


@dataclass(frozen=True)
class Provenance:
    """What has to be said of a network whose features a model learned from."""

    name: str
    source: str
    """Package, hub or folder that its weights come from."""
    weights: str
    """Digest of its weights."""
    licence: str = UNKNOWN
    training_data: str = UNKNOWN


@dataclass(frozen=True)
class InputRules:
    """What a network expects of its images."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of the channels, at 0..1."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    longest_side: int = 320
    """Pixels, where the settings say nothing."""
    multiple: int = 16
    """Both sides are rounded to multiples of this: the size of a patch."""


class ImageNetwork(nn.Module):
    """Images to features on a grid that partitions each image evenly.

    `layers` is a module in evaluation mode: normalised images to a tuple of maps, coarser ones usually later.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, layers: nn.Module, rules: InputRules, provenance: Provenance, config: ImageFeaturesConfig
    ) -> None:
        super().__init__()
        self.layers = layers.eval().requires_grad_(False).float()
        self.rules, self.provenance, self.config = rules, provenance, config
        self._centres: dict[tuple[int, int], list[tuple[Centres, Centres]]] = {}
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(rules, name)).view(3, 1, 1), persistent=False)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of what the network receives of an image of this size."""
        side, multiple = self.config.longest_side or self.rules.longest_side, self.rules.multiple
        scale = side / max(height, width)
        rows, columns = (max(1, round(length * scale / multiple)) * multiple for length in (height, width))
        return rows, columns

    @torch.no_grad()
    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the features of an image of this size. Runs the network once per size."""
        size = self.input_size(height, width)
        cell = self.config.cell or min(of[0].step for of in self._centres_of(size))
        rows, columns = (max(1, round(length / cell)) for length in size)
        return rows, columns

    @torch.no_grad()
    def forward(
        self, images: Float[Tensor, "image 3 row column"]
    ) -> Float[Tensor, "image channel grid_row grid_column"]:
        """Features of images of one size, with colours 0..1, before any reduction.

        Raises:
            PresetError: the network does not take images of that size.
        """
        height, width = images.shape[2:]
        size = self.input_size(height, width)
        grid, centres = self.grid_size(height, width), self._centres_of(size)
        resized = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        maps = self.layers((resized.clamp(0.0, 1.0) - self.mean) / self.std)
        return torch.cat(
            [on_grid(one.float(), of, size, grid) for one, of in zip(maps, centres, strict=True)], dim=1
        )

    def _centres_of(self, size: tuple[int, int]) -> list[tuple[Centres, Centres]]:
        if size not in self._centres:
            empty = torch.zeros(1, 3, *size, device=self.mean.device)
            try:
                with CentreTrace(self.layers, size) as trace:
                    maps = self.layers(empty)
            except (RuntimeError, ValueError, AssertionError, IndexError) as error:
                raise PresetError(
                    f"{self.provenance.name} does not work on images of {size[1]} x {size[0]} pixels: "
                    f"{_first_line(error)}",
                    fix="--set data.image_features.longest_side=N or layers=[...] that the network knows",
                ) from error
            self._centres[size] = [trace.of((one.shape[2], one.shape[3])) for one in maps]
        return self._centres[size]


def digest_of_weights(module: nn.Module) -> str:
    """SHA-256 of names and numbers of a network's weights."""
    digest = hashlib.sha256()
    for name, values in sorted(module.state_dict().items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
