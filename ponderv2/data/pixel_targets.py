"""What pixels are compared with beside colour, depth and class; none of it needs a label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.data.clusters import Clustering, ClusterPoints
from ponderv2.data.pooled_features import PooledFeatures
from ponderv2.data.views import Decode, FramePixels, shown_points, surface_points
from ponderv2.geometry.depth_normals import normals_of_depth
from ponderv2.scenes.batch import PixelBatch
from ponderv2.scenes.feature_maps import sample_feature_map
from ponderv2.scenes.scene import Frame


@dataclass(frozen=True)
class DepthNormals:
    """Normals of the measured depth, as `normals_of_depth` makes them."""

    radius: int | None
    """Pixels; None: by the angle of the pixels."""
    steepest: float
    """Degrees."""


@dataclass(frozen=True)
class WantedTargets:
    """What a model compares pixels with in addition. A value that can be pickled."""

    feature_channels: int = 0
    """Of the image features; 0: none are wanted."""
    normals: DepthNormals | None = None
    clustering: Clustering | None = None


NO_TARGETS = WantedTargets()


def with_targets(
    pixels: PixelBatch,
    frames: Sequence[Frame],
    decode: Decode,
    wanted: WantedTargets,
    clusters: ClusterPoints | None = None,
    pooled: PooledFeatures | None = None,
) -> PixelBatch:
    """The pixels of one scene with the wanted targets.

    Args:
        pixels: As they were sampled.
        frames: One per view, as they were read: the scene was not moved.
        decode: Gives their images.
        wanted: Which targets.
        clusters: Of the scene; needed where clusters are wanted.
        pooled: Image features of the scene, in place of those of each image.
    """
    if wanted.feature_channels and pooled is not None:
        pixels = replace(pixels, image_feature=_pooled(pixels, frames, decode, pooled))
    elif wanted.feature_channels:
        pixels = replace(pixels, image_feature=_features(pixels, frames, decode, wanted.feature_channels))
    if wanted.normals is not None:
        pixels = replace(pixels, normal=_normals(pixels, frames, decode, wanted.normals))
    if clusters is not None:
        pixels = replace(pixels, cluster=_clusters(pixels, frames, clusters))
    return pixels


def _measured(
    pixels: PixelBatch, frames: Sequence[Frame], decode: Decode
) -> Iterator[tuple[Bool[Tensor, " ray"], Frame, FramePixels, Int[Tensor, " pixel"]]]:
    """Of every view with a depth image: which rays, its frame and images, and the numbers of its pixels."""
    for view, frame in enumerate(frames):
        decoded = decode(frame)
        if decoded.measured:
            rays = pixels.view == view
            column, row = pixels.pixel[rays].long().unbind(1)
            yield rays, frame, decoded, row * decoded.depth.shape[1] + column


def _features(
    pixels: PixelBatch, frames: Sequence[Frame], decode: Decode, n_channels: int
) -> Float[Tensor, "ray channel"]:
    """Bilinear between the cells of the feature map; zero for views without one."""
    found = pixels.depth.new_zeros(len(pixels.depth), n_channels)
    for view, frame in enumerate(frames):
        values = decode(frame).image_feature
        if values is None:
            continue
        rays = pixels.view == view
        size = (frame.camera.width, frame.camera.height)
        feature = sample_feature_map(values, pixels.pixel[rays], size)
        known = torch.isfinite(feature).all(dim=1, keepdim=True)
        found[rays] = torch.where(known, feature, 0.0)
    return found


def _pooled(
    pixels: PixelBatch, frames: Sequence[Frame], decode: Decode, pooled: PooledFeatures
) -> Float[Tensor, "ray channel"]:
    """Of the place that each pixel shows; zero for views without depth."""
    found = pixels.depth.new_zeros(len(pixels.depth), pooled.feature.shape[1])
    for rays, frame, decoded, numbers in _measured(pixels, frames, decode):
        found[rays] = pooled.at(surface_points(frame, decoded, numbers))
    return found


def _normals(
    pixels: PixelBatch, frames: Sequence[Frame], decode: Decode, config: DepthNormals
) -> Float[Tensor, "ray 3"]:
    """In the frame of each camera; zero for views without depth."""
    found = torch.zeros(len(pixels.depth), 3)
    for rays, frame, decoded, numbers in _measured(pixels, frames, decode):
        intrinsics = frame.camera.intrinsics
        found[rays] = normals_of_depth(decoded.depth, numbers, intrinsics, config.radius, config.steepest)
    return found


def _clusters(pixels: PixelBatch, frames: Sequence[Frame], clusters: ClusterPoints) -> Int[Tensor, " ray"]:
    """Of the point nearest to what each pixel shows; -1 for pixels without depth."""
    found = torch.full_like(pixels.label, -1)
    for view, frame in enumerate(frames):
        rays = (pixels.view == view) & (pixels.depth > 0)
        if bool(rays.any()):
            points = shown_points(pixels.pixel[rays], pixels.depth[rays], frame.camera)
            found[rays] = clusters.at(points)
    return found
