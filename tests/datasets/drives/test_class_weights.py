"""Class weights of SemanticKITTI against the published numbers."""

from __future__ import annotations

import math

import pytest

from ponder_cli.presets import load_preset
from ponderv2.datasets.semantickitti.statistics import SHARES, class_weights
from ponderv2.workflows.config import FinetuneConfig

PUBLISHED = (
    3.1557, 8.7029, 7.8281, 6.1354, 6.3161, 7.9937, 8.9704, 10.1922, 1.6155, 4.2187, 1.9385, 5.5455, 2.0198,
    2.6261, 1.3212, 5.1102, 2.5492, 5.8585, 7.3929,
)  # fmt: skip


def test_weights_by_the_rule_are_the_published_ones() -> None:
    assert class_weights() == pytest.approx(PUBLISHED, abs=1e-3)
    assert sum(SHARES.values()) == pytest.approx(1.0, abs=1e-5)


def test_presets_have_the_weights_of_the_rule() -> None:
    config = load_preset("finetune", "semantickitti_semantic", None, FinetuneConfig)
    assert config.model.losses.class_weights == pytest.approx(class_weights(), abs=1e-3)


def test_weights_follow_from_any_map_of_labels() -> None:
    vehicles_and_ground = {10: 0, 252: 0, 18: 0, 258: 0, 40: 1, 60: 1, 44: 1, 48: 1, 49: 1, 0: -1}
    share = SHARES[10] + SHARES[252] + SHARES[18] + SHARES[258]
    assert class_weights(vehicles_and_ground, 2)[0] == pytest.approx(-math.log(share))
    with pytest.raises(ValueError, match="no point has class 1"):
        class_weights({10: 0, 16: 1}, 2)
