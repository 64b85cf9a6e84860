"""Seeds vote, votes are clustered, clusters propose boxes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.point_sampling import ball_query, farthest_points
from ponderv2.heads.detection.votenet.config import VoteNetHeadConfig
from ponderv2.sparse.normalisation import BatchNorm


@dataclass(frozen=True)
class VoteNetOutputs:
    """Of all scenes, concatenated; metres, the frames of the scenes."""

    point: Float[Tensor, "point 3"]
    point_offset: Int[Tensor, " scene"]
    seed: Float[Tensor, "seed 3"]
    vote: Float[Tensor, "seed 3"]
    seed_offset: Int[Tensor, " scene"]
    cluster: Float[Tensor, "proposal 3"]
    """Vote that the cluster is made around."""
    center: Float[Tensor, "proposal 3"]
    offset: Int[Tensor, " scene"]
    """Exclusive ends of the proposals of each scene."""
    objectness: Float[Tensor, "proposal 2"]
    """Logits of none and object."""
    heading: Float[Tensor, "proposal heading"]
    """Logits."""
    heading_residual: Float[Tensor, "proposal heading"]
    """In units of pi / n_headings."""
    size: Float[Tensor, "proposal size"]
    """Logits of the classes whose mean size fits."""
    size_residual: Float[Tensor, "proposal size 3"]
    """In units of the mean sizes."""
    logits: Float[Tensor, "proposal class"]


def _layers(widths: list[int]) -> nn.Sequential:
    """Linear, norm, ReLU from each width to the next."""
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Linear(before, after, bias=False), BatchNorm(after), nn.ReLU()]
    return nn.Sequential(*parts)


class VoteNetNetwork(nn.Module):
    """Features of points to proposals."""

    def __init__(self, config: VoteNetHeadConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        self.voting = _layers([in_channels] * 3)
        self.vote = nn.Linear(in_channels, 3 + in_channels)
        self.clustering = _layers([3 + in_channels, *[config.channels] * 3])
        self.proposing = _layers([config.channels] * 3)
        n_headings = config.n_headings
        self.widths = (2, 3, n_headings, n_headings, n_classes, 3 * n_classes, n_classes)
        self.proposal = nn.Linear(config.channels, sum(self.widths))

    def forward(self, features: PointFeatures) -> VoteNetOutputs:
        """In training clusters are made around the farthest votes, else around the votes of the farthest
        seeds, as published."""
        config = self.config
        chosen, seed_offset = farthest_points(features.coord, features.offset, config.n_seeds)
        seed, of_seed = features.coord[chosen], features.feature[chosen]
        moved = self.vote(self.voting(of_seed))
        vote = seed + moved[:, :3].float()
        of_vote = F.normalize(of_seed + moved[:, 3:], dim=1)
        around = vote if self.training else seed
        middle, offset = farthest_points(around, seed_offset, config.n_proposals)
        cluster = vote[middle]
        near = ball_query(vote, seed_offset, cluster, offset, config.radius, config.n_neighbours)
        # A vote is always in its own ball.
        away = (vote[near] - cluster[:, None]) / config.radius
        grouped = torch.cat([away.to(of_vote.dtype), of_vote[near]], dim=2)
        inner = self.clustering(grouped.flatten(0, 1)).unflatten(0, near.shape).amax(dim=1)
        parts = self.proposal(self.proposing(inner)).float().split(self.widths, dim=1)
        return VoteNetOutputs(
            point=features.coord,
            point_offset=features.offset,
            seed=seed,
            vote=vote,
            seed_offset=seed_offset,
            cluster=cluster,
            center=cluster + parts[1],
            offset=offset,
            objectness=parts[0],
            heading=parts[2],
            heading_residual=parts[3],
            size=parts[4],
            size_residual=parts[5].unflatten(1, (-1, 3)),
            logits=parts[6],
        )
