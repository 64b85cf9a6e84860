"""Renderer hyper-parameters under their official names -> our settings, in the published numeric mode."""

from __future__ import annotations

from typing import Any

import torch

from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.renderer.config import (
    BoxLimitsConfig,
    ContrastiveConfig,
    DecoderConfig,
    ErrorBoundedSamplerConfig,
    FieldConfig,
    FixedLimitsConfig,
    NeusConfig,
    NeusSamplerConfig,
    RendererConfig,
    RenderLossConfig,
    UniformSamplerConfig,
    VolsdfConfig,
)

Official = dict[str, Any]

SPACINGS = {
    "UniformSampler": "uniform",
    "LinearDisparitySampler": "linear_disparity",
    "SqrtSampler": "sqrt",
    "LogSampler": "log",
    "UniformLinDispPiecewiseSampler": "piecewise",
}
LOSS_NAMES = {"color": "rgb_loss", "depth": "depth_loss", "sdf": "sdf_loss", "free_space": "free_space_loss"}
LOSS_NAMES |= {"eikonal": "eikonal_loss", "semantic": "semantic_loss"}


def renderer_config(official: Official) -> RendererConfig:
    """`renderer` of the published models: `NeuSModel` or `VolSDFModel`."""
    field = official["field"]
    return RendererConfig(
        field=FieldConfig(
            sdf=_decoder(field["sdf_decoder"]),
            color=_decoder(field["rgb_decoder"]) if field.get("rgb_decoder") else None,
            semantic=_decoder(field["semantic_decoder"])
            if field.get("semantic_decoder")
            else DecoderConfig(),
            geometry_channels=field["sdf_decoder"]["out_dim"] - 1,
            share_volume=field.get("share_volume", True),
            use_gradient=field.get("use_gradient", True),
            beta_init=field["beta_init"],
            gradient_in_volume_units=True,
            clamp_points=field.get("norm_pts", False),
        ),
        limits=_limits(official["collider"]),
        sampler=_sampler(official["sampler"]),
        opacity=VolsdfConfig() if official["type"] == "VolSDFModel" else NeusConfig(),
        clip_distance_per_scene=True,
    )


def loss_config(official: Official) -> RenderLossConfig:
    """`loss` of the published renderers; class 0 has no target and misses are pulled to black."""
    loss = official["loss"]
    weights = {ours: loss["weights"].get(theirs, 0.0) for ours, theirs in LOSS_NAMES.items()}
    return RenderLossConfig(
        **weights,
        truncation=loss.get("sensor_depth_truncation", 0.05),
        semantic_target=ContrastiveConfig(temperature=loss.get("temperature", 0.01)),
        supervise_class_zero=False,
        color_of_misses=True,
    )


def channels(official: Official) -> tuple[int, int]:
    """Channels of the volume, and of rendered semantics (0 = none)."""
    field = official["field"]
    width = field["sdf_decoder"]["in_dim"]
    semantic = field.get("semantic_decoder")
    return width if field.get("share_volume", True) else 2 * width, semantic["out_dim"] if semantic else 0


def volume_of(official: Official, values: torch.Tensor) -> FeatureVolume:
    """The volume in the box that the published field reads: 0..1, or with normalised points about +-0.55."""
    field, n_scenes = official["field"], len(values)
    lower, upper = 0.0, 1.0
    if field.get("norm_pts", False):
        upper = (1.0 + field.get("norm_padding", 0.1) + 0.001) / 2.0
        lower = -upper
    corners = (torch.full((n_scenes, 3), edge, dtype=torch.float32) for edge in (lower, upper))
    return FeatureVolume(values, *corners, corners_are_centres=True)


def _decoder(official: Official) -> DecoderConfig:
    return DecoderConfig(
        hidden=official.get("hidden_size", 256),
        n_blocks=official.get("n_blocks", 5),
        points_factor=official.get("points_factor", 1.0),
    )


def _limits(official: Official) -> BoxLimitsConfig | FixedLimitsConfig:
    if official["type"] == "NearFarCollider":
        return FixedLimitsConfig(near=official["near_plane"], far=official["far_plane"])
    box = official["bbox"]
    return BoxLimitsConfig(lower=tuple(box[:3]), upper=tuple(box[3:]), near=official.get("near_plane", 0.0))


def _sampler(official: Official) -> UniformSamplerConfig | NeusSamplerConfig | ErrorBoundedSamplerConfig:
    stratified = official.get("train_stratified", True)
    if official["type"] in SPACINGS:
        return _even(official["type"], official, stratified, official.get("single_jitter", False))
    if official["type"] == "ErrorBoundedSampler":
        return ErrorBoundedSamplerConfig(
            n_samples=official.get("num_samples", 64),
            n_evaluated=official.get("num_samples_eval", 128),
            n_extra=official.get("num_samples_extra", 32),
            error=official.get("eps", 0.1),
            n_bisections=official.get("beta_iters", 10),
            n_rounds=official.get("max_total_iters", 5),
            stratified=stratified,
            single_jitter=official.get("single_jitter", False),
            normalise_points=False,
        )
    assert official["type"] == "NeuSSampler", official["type"]
    initial = official.get("initial_sampler", "UniformSampler")
    return NeusSamplerConfig(
        initial=_even(initial, official, stratified, official.get("single_jitter", True)),
        n_importance=official.get("num_samples_importance", 64),
        n_rounds=official.get("num_upsample_steps", 4),
        base_inv_s=official.get("base_variance", 64),
        normalise_points=False,
    )


def _even(kind: str, official: Official, stratified: bool, single_jitter: bool) -> UniformSamplerConfig:
    return UniformSamplerConfig(
        n_samples=official.get("num_samples", 64),
        spacing=SPACINGS[kind],
        stratified=stratified,
        single_jitter=single_jitter,
    )
