"""Text embeddings of classes as targets, and the classification of points against them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.errors import PresetError
from ponderv2.models.config import TextTargetConfig


def text_embeddings(config: TextTargetConfig) -> Float[Tensor, "class channel"]:
    """One unit row per class name: read from a `.npy` file, or mutually orthogonal directions."""
    shape = (config.n_classes, config.n_channels)
    if config.embeddings == "orthogonal":
        seeded = torch.Generator().manual_seed(0)
        directions, _ = torch.linalg.qr(torch.randn(max(shape), min(shape), generator=seeded))
        return (directions.T if shape[0] <= shape[1] else directions).contiguous()
    import numpy as np

    path = config.embeddings
    try:
        rows = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
    except (OSError, ValueError, EOFError, AttributeError) as error:  # AttributeError: an archive .npz
        raise PresetError(
            f"cannot read class embeddings from {path}: {error}", fix="a .npy of [class, channel]"
        ) from error
    if tuple(rows.shape) != shape or not torch.isfinite(rows).all():
        raise PresetError(f"{path} holds {tuple(rows.shape)} numbers, expected {shape}, all finite")
    return F.normalize(rows, dim=1)


def point_loss(
    embedded: Float[Tensor, "point channel"],
    segment: Int[Tensor, " point"],
    class_rows: Float[Tensor, "class channel"],
    logit_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Cross-entropy of cosine similarities with the class rows (point prompt training); 0 without labels."""
    logits = F.normalize(embedded, dim=1) @ class_rows.T * logit_scale.exp()
    known = (segment >= 0).sum().clamp(min=1)
    return F.cross_entropy(logits, segment, ignore_index=-1, reduction="sum") / known
