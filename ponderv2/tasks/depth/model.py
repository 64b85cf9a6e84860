"""An encoder of images with a linear layer: the depth of every pixel."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.collectives import global_mean
from ponderv2.encoder.encoder import HasStageMaps, image_network_of
from ponderv2.geometry.features import FusedFeatures, ImageFeatures
from ponderv2.heads.config import LinearHeadConfig
from ponderv2.heads.semantic import LinearHead
from ponderv2.lift.config import DepthIntervalsConfig
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.randomness import scene_generators
from ponderv2.scenes.batch import Batch, ImageBatch
from ponderv2.sparse.normalisation import BatchNorm
from ponderv2.tasks.depth.config import DepthLossConfig, DepthModelConfig


@dataclass(frozen=True)
class DepthLosses:
    """Each term already weighted. A term that is not used is exactly zero, not absent."""

    cross_entropy: Float[Tensor, ""]
    log_depth: Float[Tensor, ""]

    def total(self) -> Float[Tensor, ""]:
        """The number to call backward on: every field, always."""
        return torch.stack([getattr(self, term.name) for term in fields(self)]).sum()


@dataclass(frozen=True)
class DepthStep:
    """What one training step yields."""

    losses: DepthLosses


@dataclass(frozen=True)
class MeasuredPixels:
    """Pixels of images with a measured depth, view after view."""

    view: Int[Tensor, " pixel"]
    row: Int[Tensor, " pixel"]
    column: Int[Tensor, " pixel"]
    depth: Float[Tensor, " pixel"]
    """Metres along the optical axis."""

    def take(self, chosen: Int[Tensor, " chosen"]) -> MeasuredPixels:
        """Some of them."""
        return MeasuredPixels(*(getattr(self, one.name)[chosen] for one in fields(self)))


class DepthModel(EncoderModel):
    """The depth of every pixel."""

    def __init__(self, config: DepthModelConfig) -> None:
        """Raises ValueError for an encoder whose network has no stages where the settings read these."""
        super().__init__(config)
        self.config = config
        self.widths = self._widths()
        self.add_embeddings()
        settings = LinearHeadConfig(n_classes=config.intervals.n_bins, normalise=True)
        self.head = LinearHead(settings, sum(self.widths))
        if config.reads == "network":
            self._leave_others()
        self.freeze()

    def _widths(self) -> tuple[int, ...]:
        if isinstance(self.backbone, HasStageMaps):
            reads_stages = self.config.reads == "network"
            return self.backbone.stage_widths if reads_stages else self.backbone.map_widths
        if self.config.reads == "network":
            raise ValueError(
                "the encoder has no 2D network whose stages could be read: model.reads is network"
            )
        return (self.n_channels,)

    def _leave_others(self) -> None:
        """What the stages of the network are not made of is not trained."""
        network = image_network_of(self.backbone)
        kept = set() if network is None else {id(one) for one in network[1].parameters()}
        for parameter in self.backbone.parameters():
            if id(parameter) not in kept:
                parameter.requires_grad_(False)

    def maps(self, batch: Batch) -> ImageFeatures:
        """What the head reads. Raises ValueError for a batch without images, or an encoder of points."""
        if self.config.reads == "network":
            assert isinstance(self.backbone, HasStageMaps)
            is_frozen = self.config.freeze_encoder and not self.config.train_decoder
            with torch.no_grad() if is_frozen else nullcontext():
                return self.backbone.stage_maps(batch)
        features = self.encode(batch)
        features = features.images if isinstance(features, FusedFeatures) else features
        if not isinstance(features, ImageFeatures):
            raise ValueError("depth is read out of features of images, those of points are none")
        return features

    def forward(self, batch: Batch, generator: torch.Generator) -> DepthStep:
        """One training step. `generator` chooses the pixels and starts alike in all processes."""
        assert batch.images is not None
        measured = some_of_each_view(self.measured(batch.images), batch, self.config.n_pixels, generator)
        features = self.maps(batch)
        logits = self.head(features_at(features, measured, batch.images))
        return DepthStep(depth_losses(logits, measured.depth, self.config.intervals, self.config.losses))

    def measured(self, images: ImageBatch) -> MeasuredPixels:
        """All pixels whose depth lies in the intervals. Raises ValueError where no depths are given."""
        return measured_pixels(images, self.config.intervals)

    def depth(self, batch: Batch) -> Float[Tensor, "view row column"]:
        """Expected depth of every pixel of the images of a batch, metres. In evaluation mode."""
        assert batch.images is not None
        height, width = batch.images.image.shape[2:]
        features = self.maps(batch)
        padded = features.padded_size or (height, width)
        weight, bias = self._folded()
        parts = weight.split(self.widths, dim=1)
        found: list[Tensor] = []
        for view in range(len(batch.images.image)):
            logits = bias[None, :, None, None]
            for one, part in zip(features.maps, parts, strict=True):
                scores = F.conv2d(one.feature[view : view + 1].float(), part[:, :, None, None])
                logits = logits + F.interpolate(scores, padded, mode="bilinear", align_corners=False)
            found.append(expected_depth(logits[0, :, :height, :width].movedim(0, -1), self.config.intervals))
        return torch.stack(found)

    def _folded(self) -> tuple[Float[Tensor, "bin channel"], Float[Tensor, " bin"]]:
        """Weights of the head for features as they are."""
        norm, linear = self.head.norm, self.head.linear
        assert isinstance(norm, BatchNorm) and norm.running_mean is not None and norm.running_var is not None
        weight = linear.weight / (norm.running_var + norm.eps).sqrt()
        return weight, linear.bias - weight @ norm.running_mean


def measured_pixels(images: ImageBatch, intervals: DepthIntervalsConfig) -> MeasuredPixels:
    """All pixels whose measured depth lies in the intervals. Raises ValueError without `images.depth`."""
    if images.depth is None:
        raise ValueError(
            "the images of the batch come without measured depths: set data.images.depth to true"
        )
    inside = (images.depth >= max(intervals.nearest, 1e-6)) & (images.depth < intervals.farthest)
    view, row, column = inside.nonzero(as_tuple=True)
    return MeasuredPixels(view, row, column, images.depth[view, row, column])


def some_of_each_view(
    measured: MeasuredPixels, batch: Batch, most: int, generator: torch.Generator
) -> MeasuredPixels:
    """At most that many of each image, at random; whatever the other scenes of the batch are."""
    assert batch.images is not None
    counts = torch.bincount(measured.view.cpu(), minlength=len(batch.images.image)).tolist()
    if max(counts, default=0) <= most:
        return measured
    generators = scene_generators(generator, batch.n_scenes, batch.slots)
    kept, first = [], 0
    for count, scene in zip(counts, batch.images.view_scene.tolist(), strict=True):
        kept.append(first + torch.randperm(count, generator=generators[scene])[:most])
        first += count
    return measured.take(torch.cat(kept).to(measured.view.device))


def features_at(
    features: ImageFeatures, measured: MeasuredPixels, images: ImageBatch
) -> Float[Tensor, "pixel channel"]:
    """Bilinear features at pixels of the images: those of all maps side by side, in float32."""
    height, width = features.padded_size or images.image.shape[2:]
    place = torch.stack([(measured.column + 0.5) / width, (measured.row + 0.5) / height], dim=1) * 2 - 1
    counts = torch.bincount(measured.view, minlength=len(images.image)).tolist()
    of_views = place.split(counts)
    columns: list[Tensor] = []
    for one in features.maps:
        rows = [
            F.grid_sample(
                one.feature[view : view + 1].float(),
                grid[None, None].float(),
                mode="bilinear",
                padding_mode="border",
                align_corners=False,
            )[0, :, 0].T
            for view, grid in enumerate(of_views)
        ]
        columns.append(torch.cat(rows))
    return torch.cat(columns, dim=1)


def middles(intervals: DepthIntervalsConfig, device: torch.device | None = None) -> Float[Tensor, " bin"]:
    """Middle of each interval, metres."""
    return intervals.nearest + (torch.arange(intervals.n_bins, device=device) + 0.5) * intervals.width


def expected_depth(
    logits: Float[Tensor, "*shape bin"], intervals: DepthIntervalsConfig
) -> Float[Tensor, "*shape"]:
    """Sum of the middles of the intervals times their probabilities (softmax), metres."""
    return logits.float().softmax(dim=-1) @ middles(intervals, logits.device)


def depth_losses(
    logits: Float[Tensor, "pixel bin"],
    depth: Float[Tensor, " pixel"],
    intervals: DepthIntervalsConfig,
    config: DepthLossConfig,
) -> DepthLosses:
    """Means over the pixels of all processes; 0 where there are none. `depth`: within the intervals."""
    logits = logits.float()
    place = ((depth - intervals.nearest) / intervals.width - 0.5).clamp(0, intervals.n_bins - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=intervals.n_bins - 1)
    share = place - low
    log_probability = logits.log_softmax(dim=1)
    first, second = (log_probability.gather(1, one[:, None])[:, 0] for one in (low, high))
    entropy = -((1.0 - share) * first + share * second)
    ratio = (expected_depth(logits, intervals).log() - depth.log()).abs()
    count = depth.new_tensor(float(len(depth)))
    return DepthLosses(
        cross_entropy=config.cross_entropy * global_mean(entropy.sum(), count),
        log_depth=config.log_depth * global_mean(ratio.sum(), count),
    )
