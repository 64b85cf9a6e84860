"""Embeddings of class names as targets, and the classification of points against them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.collectives import global_mean
from ponderv2.heads.text_embeddings import embedding_rows
from ponderv2.models.config import TextTargetConfig


def text_embeddings(config: TextTargetConfig) -> Float[Tensor, "class channel"]:
    """One unit row per class. Raises PresetError and ResourceError as `embedding_rows`."""
    return embedding_rows(config.embeddings, (config.n_classes, config.n_channels), config.names)


def class_cosines(
    embedded: Float[Tensor, "point channel"], class_rows: Float[Tensor, "class channel"]
) -> Float[Tensor, "point class"]:
    """Cosine similarity with each class. The few products are divided by the length, not the features."""
    length = torch.linalg.vector_norm(embedded, dim=1, keepdim=True).clamp(min=1e-12)
    return embedded @ class_rows.T / length


def point_loss(
    cosines: Float[Tensor, "point class"], segment: Int[Tensor, " point"], logit_scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Cross-entropy of cosine similarities with the class rows (point prompt training).

    Over the labelled points of all processes; 0 without labels.
    """
    total = F.cross_entropy(cosines * logit_scale.exp(), segment, ignore_index=-1, reduction="sum")
    return global_mean(total, (segment >= 0).sum().to(total.dtype))
