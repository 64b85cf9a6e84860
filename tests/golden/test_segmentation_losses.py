"""The losses of segmentation against the published criteria."""

from __future__ import annotations

import pytest
from torch import Tensor

from ponderv2.heads.semantic import read_class_weights, segmentation_losses
from tests.golden.cases import Case
from tests.golden.compare import assert_relative_l2
from tests.golden.official_configs import loss_settings

KIND = "segmentation_losses"
LOGITS = ("in_logits", "in_pred", "in_seg_logits", "in_input")
TARGET = ("in_segment", "in_target")
TERMS = {"cross_entropy": ("cross_entropy", "ce"), "lovasz": ("lovasz",)}


def array(case: Case, names: tuple[str, ...], suffix: str) -> Tensor:
    """The first of the arrays that the case has."""
    found = next((name + suffix for name in names if name + suffix in case), None)
    assert found is not None, f"{case.name} has none of {names}"
    return case.tensor(found)


def suffixes(case: Case) -> list[str]:
    """One per set of inputs: `in_logits`, or `in_logits_absent`, `in_logits_ignored`, ..."""
    stems = [name for name in LOGITS if any(one.startswith(name) for one in case.arrays)]
    return [name.removeprefix(stems[0]) for name in case.arrays if stems and name.startswith(stems[0])]


def test_losses_and_their_gradients_equal_the_published_criteria(case: Case) -> None:
    criteria = case.config.get("criteria") or [case.config]
    config, compared = loss_settings(criteria), 0
    for suffix in suffixes(case):
        logits = array(case, LOGITS, suffix).requires_grad_()
        terms = segmentation_losses(logits, array(case, TARGET, suffix), config, read_class_weights(config))
        values = {"loss": terms.total()}
        values |= {alias: getattr(terms, name) for name, every in TERMS.items() for alias in every}
        for name in values:
            for key in (f"out_{name}{suffix}", f"out_{name}_loss{suffix}"):
                if key in case:
                    expected = case.scalar(key)
                    assert float(values[name].detach()) == pytest.approx(expected, rel=1e-4, abs=1e-7), key
                    compared += 1
        terms.total().backward()
        for key in (f"out_grad_logits{suffix}", f"out_grad{suffix}"):
            if key in case:
                assert logits.grad is not None
                assert_relative_l2(logits.grad, case.tensor(key), 1e-4, key)
                compared += 1
    assert compared, f"nothing in {case.name} was compared: {sorted(case.arrays)}"
