"""Heads that take over the scores of a linear classifier."""

from __future__ import annotations

import pytest
import torch

from ponderv2.heads.config import DecoupledHeadConfig, FinalHeadConfig, LanguageHeadConfig, LinearHeadConfig
from ponderv2.heads.kinds import build_head
from ponderv2.heads.language import LanguageHead
from ponderv2.heads.semantic import LinearHead


@pytest.fixture
def classifier(rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, weight and bias of five classes."""
    return (
        torch.randn(300, 7, generator=rng) + 1.0,
        2.0 * torch.randn(5, 7, generator=rng),
        torch.randn(5, generator=rng),
    )


@pytest.mark.parametrize(
    "config",
    [
        LinearHeadConfig(n_classes=5),
        FinalHeadConfig(n_classes=5),
        DecoupledHeadConfig(n_classes={"other": 3, "here": 5}),
    ],
    ids=lambda config: config.kind,
)
def test_the_scores_are_those_of_the_classifier(config, classifier) -> None:
    feature, weight, bias = classifier
    head = build_head(config, 7)
    head.start_as(weight, bias, "here")
    torch.testing.assert_close(head(feature, "here"), feature @ weight.T + bias, rtol=1e-5, atol=1e-5)


def test_normalised_features_have_the_same_scores_in_evaluation(classifier) -> None:
    feature, weight, bias = classifier
    head = build_head(LinearHeadConfig(n_classes=5, normalise=True), 7)
    assert isinstance(head, LinearHead)
    head.train()
    for _ in range(200):
        head(feature)
    head.start_as(weight, bias)
    torch.testing.assert_close(head.eval()(feature), feature @ weight.T + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("related", [0.0, 3.0])
def test_a_language_head_ranks_texts_as_the_classifier_does(related: float, classifier, rng) -> None:
    """Also for texts that all point into one direction, as those of CLIP do (cosines of about 0.9)."""
    feature, weight, bias = classifier
    head = build_head(LanguageHeadConfig(n_texts=5, n_channels=16), 7)
    assert isinstance(head, LanguageHead)
    texts = torch.randn(5, 16, generator=rng) + related
    head.class_embedding.copy_(torch.nn.functional.normalize(texts, dim=1))
    head.start_as(weight, bias)
    scores, truth = head(feature, "any"), feature @ weight.T + bias
    assert torch.equal(scores.argsort(dim=1), truth.argsort(dim=1))
    difference = (scores.softmax(1) - truth.softmax(1)).abs().mean().detach()
    assert float(difference) < 0.05
