"""Heads of point prompt training: classes by text embeddings, or one linear layer per dataset."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.heads.config import DecoupledHeadConfig, LanguageHeadConfig
from ponderv2.heads.text_embeddings import embedding_rows

LOGIT_SCALE = 100.0
"""Of CLIP ViT-B/16: similarities of unit vectors are multiplied by it."""


class LanguageHead(nn.Module):
    """Scores are similarities with the text embeddings of the classes of the batch's dataset (PPT-v1m1).

    State names `proj_head.*`, `class_embedding`, `logit_scale`, as published. The texts are not trained.
    """

    def __init__(self, config: LanguageHeadConfig, in_channels: int) -> None:
        super().__init__()
        if config.n_texts is None:
            raise ValueError("the number of classes is not known yet")
        texts = embedding_rows(config.embeddings, (config.n_texts, config.n_channels), config.names)
        self.config = config
        self.proj_head = nn.Linear(in_channels, config.n_channels)
        self.class_embedding: Tensor
        self.register_buffer("class_embedding", texts)
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE).log(), requires_grad=False)

    def texts_of(self, condition: str) -> Float[Tensor, "class channel"]:
        """The text embedding of each label of a dataset."""
        rows = self.config.valid_index.get(condition)
        return self.class_embedding if rows is None else self.class_embedding[list(rows)]

    def forward(
        self, feature: Float[Tensor, "point channel"], condition: str
    ) -> Float[Tensor, "point class"]:
        """exp(logit_scale) times the cosine of projected feature and text."""
        embedded = F.normalize(self.proj_head(feature), dim=1)
        return embedded @ self.texts_of(condition).to(embedded.dtype).T * self.logit_scale.exp()

    @torch.no_grad()
    def start_as(
        self, weight: Float[Tensor, "text channel"], bias: Float[Tensor, " text"], condition: str = ""
    ) -> None:
        """Rank the texts of all datasets as `feature @ weight.T + bias` does.

        With T the texts, the projection is T^+ (scores + c): its products with the texts are the scores and a
        constant, so that the cosines rank alike, exactly where the texts are linearly independent. c makes it
        about exp(logit_scale) long, so that the logits differ about as the scores do.
        """
        inverse = torch.linalg.pinv(self.class_embedding.double()).to(weight)
        constant = self.logit_scale.exp().to(weight) / inverse.sum(dim=1).norm()
        self.proj_head.weight.copy_(inverse @ weight)
        self.proj_head.bias.copy_(inverse @ (bias + constant))


class DecoupledHead(nn.Module):
    """The linear layer of the batch's dataset (PPT-v1m2). State names `seg_heads.0.*`, as published."""

    def __init__(self, config: DecoupledHeadConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        self.seg_heads = nn.ModuleList(nn.Linear(in_channels, n) for n in config.n_classes.values())

    def forward(
        self, feature: Float[Tensor, "point channel"], condition: str
    ) -> Float[Tensor, "point class"]:
        """Scores of the classes of that dataset. Raises ValueError for a dataset without a layer."""
        known = tuple(self.config.n_classes)
        if condition not in known:
            raise ValueError(f"expected a condition out of {known}, got {condition!r}")
        return self.seg_heads[known.index(condition)](feature)

    @torch.no_grad()
    def start_as(
        self, weight: Float[Tensor, "class channel"], bias: Float[Tensor, " class"], condition: str
    ) -> None:
        """Take over scores `feature @ weight.T + bias` for one dataset."""
        layer = self.seg_heads[tuple(self.config.n_classes).index(condition)]
        assert isinstance(layer, nn.Linear)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
