"""Images to maps at their cameras, by a 2D network of timm and a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.encoder.encoder import Prompt
from ponderv2.encoder.image_backbone.config import ImageBackboneConfig
from ponderv2.encoder.image_backbone.networks import StagedNetwork, build_network, published_weights
from ponderv2.encoder.image_backbone.pyramid import Pyramid
from ponderv2.geometry.features import ImageFeatures, ImageMap, intrinsics_of_map
from ponderv2.scenes.batch import Batch, ImageBatch

NORM_EPS = 1.0e-6
UNUSED = ("head.", "conv_head.", "bn2.", "norm.", "fc_norm.")
"""Layers of networks of timm after the last stage."""


class ImageBackbone(nn.Module):
    """`network` is that of timm, with its names: `ponder export` writes it as it is."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageBackboneConfig) -> None:
        """Random weights. Raises ResourceError without timm, PresetError for a network without stages."""
        super().__init__()
        self.config = config
        self.network = build_network(config)
        self._staged = StagedNetwork(self.network, config.network)
        widths = [self._staged.channels[n] for n in config.used_stages]
        norms = (nn.LayerNorm(width, NORM_EPS) if config.stage_norm else nn.Identity() for width in widths)
        self.norms = nn.ModuleList(norms)
        self.pyramid = Pyramid(widths, config.channels, config.n_maps)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self._staged, name)).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self._freeze()

    @property
    def image_network(self) -> tuple[str, nn.Module]:
        """Its name in timm, and the network with the names of timm."""
        return self.config.network, self.network

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of the used stages."""
        return tuple(self._staged.channels[n] for n in self.config.used_stages)

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels of the maps of the pyramid."""
        return (self.config.channels,) * self.config.n_maps

    def load_start_weights(self) -> tuple[nn.Module, ...]:
        """What the settings let a new run start from: the network, not the layers after it.

        Raises PresetError and ResourceError.
        """
        weights = published_weights(self.config, self.network)
        if weights is None:
            return ()
        self.network.load_state_dict(weights)
        return (self.network,)

    def forward(self, batch: Batch, prompt: Prompt | None = None) -> ImageFeatures:
        """Maps of every image, the finest first; of images with hidden blocks, of what is visible.

        Raises ValueError for a batch without images.
        """
        images = _images_of(batch)
        values = self._padded(images.image)
        visible = images.visible
        if visible is not None:
            more = (0, values.shape[3] - visible.shape[2], 0, values.shape[2] - visible.shape[1])
            visible = F.pad(visible[:, None].float(), more, mode="replicate")[:, 0] > 0
        maps = self.pyramid(self._normed(self._staged.maps(values, visible), visible))
        return _features(maps, images, batch.n_scenes, (values.shape[2], values.shape[3]))

    def stage_maps(self, batch: Batch) -> ImageFeatures:
        """The used stages of the network as they are, of all pixels. Raises ValueError without images."""
        images = _images_of(batch)
        values = self._padded(images.image)
        stages = self._staged.maps(values, None)
        maps = [stages[number] for number in self.config.used_stages]
        return _features(maps, images, batch.n_scenes, (values.shape[2], values.shape[3]))

    def _padded(self, image: Float[Tensor, "view 3 row column"]) -> Float[Tensor, "view 3 row2 column2"]:
        """Normalised; filled up with the mean colour at the right and at the bottom."""
        multiple = self._staged.multiple
        rows, columns = (-length % multiple for length in image.shape[2:])
        return F.pad((image - self.mean) / self.std, (0, columns, 0, rows))

    def _normed(self, stages: list[Tensor], visible: Bool[Tensor, "view row column"] | None) -> list[Tensor]:
        normed: list[Tensor] = []
        for norm, number in zip(self.norms, self.config.used_stages, strict=True):
            values = stages[number]
            if isinstance(norm, nn.LayerNorm):
                values = norm(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
                if visible is not None:
                    mask = F.interpolate(visible[:, None].to(values.dtype), values.shape[2:])
                    values = values * mask
            normed.append(values.contiguous())
        return normed

    def _freeze(self) -> None:
        """Frozen stages, and what no map is made of: the pooled head of the network."""
        for name, parameter in self.network.named_parameters():
            if f"network.{name}".startswith(self._frozen) or name.startswith(UNUSED):
                parameter.requires_grad_(False)

    @property
    def _frozen(self) -> tuple[str, ...]:
        count = self.config.frozen_stages
        stages = self.config.stages[: count + 1] if count else ()
        return tuple(prefix for stage in stages for prefix in stage.prefixes) or ("\0",)

    def train(self, mode: bool = True) -> ImageBackbone:
        """Frozen stages stay in evaluation, and batch norms where the settings say so."""
        super().train(mode)
        for module in self.network.modules() if self.config.norm_eval else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.training = False
        if self.config.frozen_stages:
            for name, module in self.named_modules():
                if f"{name}.".startswith(self._frozen):
                    module.training = False
        return self


def _images_of(batch: Batch) -> ImageBatch:
    if batch.images is None:
        raise ValueError("an encoder of images got a batch without images: set data.images")
    return batch.images


def _features(
    maps: Sequence[Tensor], images: ImageBatch, n_scenes: int, padded_size: tuple[int, int]
) -> ImageFeatures:
    found = [ImageMap(one, intrinsics_of_map(images.intrinsics, one.shape[2:], padded_size)) for one in maps]
    return ImageFeatures(
        feature=found[0].feature,
        intrinsics=found[0].intrinsics,
        world_to_camera=images.world_to_camera,
        view_scene=images.view_scene,
        n_scenes=n_scenes,
        coarser=tuple(found[1:]),
        padded_size=padded_size,
    )
