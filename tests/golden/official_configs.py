"""Hyper-parameters under their official names -> our settings, in the published numeric mode."""

from __future__ import annotations

from typing import Any

from ponderv2.encoder.config import MaskConfig, PromptedSparseUNetConfig, SparseUNetConfig
from ponderv2.heads.config import (
    DecoupledHeadConfig,
    FinalHeadConfig,
    LanguageHeadConfig,
    SegmentationLossConfig,
)
from ponderv2.lift.config import (
    ConvBlock3DConfig,
    CubeFrameConfig,
    DensifyConfig,
    DoubleConvUNet3DConfig,
    UNet3DConfig,
)
from ponderv2.models.config import PretextConfig, TextTargetConfig
from ponderv2.renderer.config import ContrastiveConfig, RendererConfig, RenderLossConfig
from ponderv2.tasks.segmentation.config import SegmentationModelConfig

Official = dict[str, Any]


def encoder_config(official: Official) -> SparseUNetConfig | PromptedSparseUNetConfig:
    """`backbone` of the published models, or a backbone case of its own."""
    shared = {
        "in_channels": official["in_channels"],
        "base_channels": official.get("base_channels", 32),
        "channels": official.get("channels", (32, 64, 128, 256, 256, 128, 96, 96)),
        "layers": official.get("layers", (2, 3, 4, 6, 2, 2, 2, 2)),
        "n_classes": official.get("num_classes", 0),
        "pool_scenes": official.get("cls_mode", False),
    }
    match official["type"]:
        case "SpUNet-v1m1":
            return SparseUNetConfig(**shared)
        case "SpUNet-v1m2":
            momentum = official.get("bn_momentum", 0.1)
            own = {"norm_eps": 1e-5, "norm_momentum": momentum, "unit_norm_momentum": 0.02, "pad": 1}
            return SparseUNetConfig(**shared, **own)
        case "SpUNet-v1m3":
            names = (
                "context_channels",
                "conditions",
                "norm_decouple",
                "norm_adaptive",
                "norm_affine",
                "zero_init",
            )
            defaults = {"norm_affine": False, "zero_init": True}
            given = defaults | {name: official[name] for name in names if name in official}
            return PromptedSparseUNetConfig(**shared, **given)
        case other:
            raise AssertionError(f"no backbone '{other}'")


def projection_config(official: Official) -> UNet3DConfig | DoubleConvUNet3DConfig | ConvBlock3DConfig:
    """`projection` of the published models."""
    sizes = {"out_channels": official["out_channels"]}
    if "f_maps" in official:
        sizes["f_maps"] = official["f_maps"]
    if "num_levels" in official:
        sizes["n_levels"] = official["num_levels"]
    match official["type"]:
        case "UNet3D-v1m2":
            return UNet3DConfig(**sizes)
        case "UNet3D-v1m1":
            return DoubleConvUNet3DConfig(**sizes)
        case "SimpleConv3D-v1m1":
            return ConvBlock3DConfig(out_channels=official["out_channels"])
        case other:
            raise AssertionError(f"no projection '{other}'")


def pretext_config(official: Official) -> PretextConfig:
    """`PonderIndoor-v2` with everything as published; of one dataset or several."""
    from tests.golden.official_renderer import loss_config, renderer_config

    renderer: RendererConfig = renderer_config(official["renderer"])
    losses: RenderLossConfig = loss_config(official["renderer"])
    mask = official.get("mask")
    return PretextConfig(
        encoder=encoder_config(official["backbone"]),
        mask=None if mask is None else MaskConfig(block_size=mask["size"], ratio=mask["ratio"]),
        frame=CubeFrameConfig(cells=official["grid_shape"], padding=official.get("padding", 0.1)),
        lift=DensifyConfig(grid_size=official["grid_size"], align_with_sampling=False),
        projection=projection_config(official["projection"]),
        renderer=renderer,
        losses=losses.model_copy(update={"semantic_target": _contrastive(official)}),
        semantic=_text_targets(official),
        conditions=tuple(official["conditions"]),
        context_channels=official["context_channels"],
        ray_box=0.5 + official.get("padding", 0.1) / 2,
    )


def segmentation_config(official: Official) -> SegmentationModelConfig:
    """`PPT-v1m1`, `PPT-v1m2` and `DefaultSegmentor` with everything as published."""
    backbone = official["backbone"]
    if "backbone" in backbone:  # a segmentor around PPT in backbone mode: the classes are those of `final`
        return segmentation_config(backbone | {"criteria": official.get("criteria", [])})
    encoder = encoder_config(backbone).model_copy(update={"n_classes": 0})
    losses = loss_settings(official.get("criteria") or [])
    conditions = tuple(official.get("conditions", ()))
    if backbone.get("num_classes"):
        head: Any = FinalHeadConfig(n_classes=backbone["num_classes"])
    elif official["type"] == "PPT-v1m2":
        counts = official.get("num_classes", (25, 20, 13))
        head = DecoupledHeadConfig(n_classes=dict(zip(conditions, counts, strict=True)))
    else:
        rows = dict(zip(conditions, map(tuple, official["valid_index"]), strict=True))
        head = LanguageHeadConfig(n_texts=len(official["class_name"]), valid_index=rows)
    return SegmentationModelConfig(encoder=encoder, head=head, losses=losses, conditions=conditions)


def loss_settings(criteria: list[Official]) -> SegmentationLossConfig:
    """The list of criteria, of which each may occur once."""
    found = {"cross_entropy": 0.0, "lovasz": 0.0}
    for one in criteria:
        assert one.get("ignore_index", -1) == -1, "only -1 is ignored here"
        match one["type"]:
            case "CrossEntropyLoss":
                found["cross_entropy"] = one.get("loss_weight", 1.0)
                found["label_smoothing"] = one.get("label_smoothing", 0.0)
                found["class_weights"] = one.get("weight")
            case "LovaszLoss":
                assert one.get("mode", "multiclass") == "multiclass"
                found["lovasz"] = one.get("loss_weight", 1.0)
            case other:
                raise AssertionError(f"no criterion '{other}'")
    return SegmentationLossConfig.model_validate(found)


def _contrastive(official: Official) -> ContrastiveConfig:
    return ContrastiveConfig(temperature=official["renderer"]["loss"].get("temperature", 0.01))


def _text_targets(official: Official) -> TextTargetConfig | None:
    if not official.get("render_semantic"):
        return None
    weight = official.get("ppt_loss_weight", 1.0)
    rows = [tuple(one) for one in official["valid_index"]]
    return TextTargetConfig(
        n_classes=len(official["class_name"]),
        valid_index=dict(zip(official["conditions"], rows, strict=True)) if len(rows) > 1 else rows[0],
        point_head=weight > 0,
        point_loss_weight=max(weight, 0.0),
        include_point_loss=False,
    )
