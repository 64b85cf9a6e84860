"""What every encoder is: a module from a batch, and the prompt of its dataset, to features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.geometry.features import Features, ImageFeatures
from ponderv2.geometry.voxels import SparseVoxels, batch_index
from ponderv2.scenes.batch import Batch


@dataclass(frozen=True)
class Prompt:
    """The condition of a batch (point prompt training): which dataset it comes from."""

    index: int
    """Position in the `conditions` of the encoder."""
    context: Float[Tensor, "1 context"] | None = None
    """The learned vector of the dataset; None where nothing is modulated."""


class Encoder(Protocol):
    """The module that the settings of an encoder build; its state is that of `backbone`."""

    def __call__(self, batch: Batch, prompt: Prompt | None = None) -> Features:
        """Features of the points or of the images of a batch.

        Encoders without `conditions` ignore the prompt; the others raise ValueError without one.
        """
        ...


@runtime_checkable
class StartsFromWeights(Protocol):
    """An encoder, or a part of one, that a new run lets start from published weights."""

    def load_start_weights(self) -> tuple[nn.Module, ...]:
        """Takes them, where the settings name any, and returns the parts of it that have them.

        Raises PresetError and ResourceError.
        """
        ...


@runtime_checkable
class HasImageNetwork(Protocol):
    """An encoder with a 2D network that other programs know."""

    @property
    def image_network(self) -> tuple[str, nn.Module]:
        """Its name in timm, and the network with the names of timm."""
        ...


@runtime_checkable
class HasStageMaps(Protocol):
    """An encoder whose 2D network can be read stage by stage, before the layers that join the stages."""

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of the stages that the maps are made of, the finest first."""
        ...

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels of the maps."""
        ...

    def stage_maps(self, batch: Batch) -> ImageFeatures:
        """The stages as maps, of all pixels. Raises ValueError for a batch without images."""
        ...


def image_network_of(encoder: nn.Module) -> tuple[str, nn.Module] | None:
    """The 2D network of an encoder, and its name in timm; None for encoders without one."""
    return encoder.image_network if isinstance(encoder, HasImageNetwork) else None


def voxels_of(batch: Batch) -> SparseVoxels:
    """The points of a batch, one per voxel, as encoders of points take them."""
    return SparseVoxels(batch.feature, batch.grid_coord, batch_index(batch.offset), len(batch.offset))
