"""Offsets that follow from the features are found by the fit."""

from __future__ import annotations

import torch

from ponderv2.heads.instances import offset_head
from ponderv2.tasks.instances.head_start import fit_offsets


def test_offsets_that_follow_from_features_are_found(rng: torch.Generator) -> None:
    """Features on very different scales; on rows that were not fitted, in evaluation."""
    feature = torch.randn(1500, 12, generator=rng) * torch.logspace(-2, 2, 12) + 3.0
    standard = (feature - 3.0) / torch.logspace(-2, 2, 12)
    offset = standard[:, :3] + 0.5 * standard[:, 3:6].abs()
    head = offset_head(12)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    fitted, error = fit_offsets(head, feature[:1000], offset[:1000])
    assert all(torch.equal(head.state_dict()[name], value) for name, value in before.items())
    with torch.no_grad():
        held_out = (fitted(feature[1000:]) - offset[1000:]).abs().sum(dim=1).mean()
    spread = (offset - offset.mean(dim=0)).abs().sum(dim=1).mean()
    assert error < 0.2 * spread and held_out < 0.3 * spread
    again, _ = fit_offsets(head, feature[:1000], offset[:1000])
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in fitted.state_dict().items())
    assert fitted[1].momentum == head[1].momentum
