"""Schedules against torch's own; groups, factors and frozen parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR

from ponderv2.training.config import (
    AdamwConfig,
    ConstantConfig,
    OneCycleConfig,
    PolyConfig,
    SgdConfig,
    TrainingConfig,
)
from ponderv2.training.optimiser import build_optimiser, lr_at, set_lr
from ponderv2.training.sampler import RankShare, Sampler, Schedule, sample_index_at


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0.3), (97, 0.05), (400, 0.4), (33, 0.5)])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_one_cycle_equals_torch(kind: str, steps: int, warmup: float) -> None:
    config = OneCycleConfig(warmup=warmup, divide_start=10, divide_end=1e4)
    weight = nn.Parameter(torch.zeros(1))
    truth = SGD([weight], lr=0.3, momentum=0.9) if kind == "sgd" else AdamW([weight], lr=0.3)
    schedule = OneCycleLR(
        truth, 0.3, total_steps=steps, pct_start=warmup, div_factor=10, final_div_factor=1e4
    )
    for step in range(steps):
        lr = lr_at(step, steps, config)
        group = truth.param_groups[0]
        momentum = group["momentum"] if kind == "sgd" else group["betas"][0]
        assert 0.3 * lr.factor == pytest.approx(group["lr"], rel=1e-9)
        assert lr.momentum == pytest.approx(momentum, rel=1e-9)
        truth.step()
        if step < steps - 1:
            schedule.step()


def test_poly_is_the_published_power() -> None:
    assert lr_at(0, 10, PolyConfig()).factor == 1.0
    assert lr_at(5, 10, PolyConfig()).factor == pytest.approx((1 - 5 / 11) ** 0.9)


def test_constant_rises_along_a_line() -> None:
    factors = [lr_at(step, 10, ConstantConfig(warmup_steps=3)).factor for step in range(5)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_one_step_runs_have_a_pace() -> None:
    assert 0 < lr_at(0, 1, OneCycleConfig()).factor <= 1


def test_rate_factors_and_frozen_names_reach_the_groups() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2), "old": nn.Linear(2, 2)})
    config = TrainingConfig(
        optimiser=AdamwConfig(rate=0.1),
        rate_factors={"backbone.": 0.1, "backbone.bias": 0.5},
        frozen=("old.",),
    )
    optimiser = build_optimiser(model, config)
    set_lr(optimiser, lr_at(0, 10, PolyConfig()))
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert rates[id(model["backbone"].weight)] == pytest.approx(0.01)
    assert rates[id(model["backbone"].bias)] == pytest.approx(0.05)
    assert rates[id(model["head"].weight)] == pytest.approx(0.1)
    assert not model["old"].weight.requires_grad and id(model["old"].weight) not in rates


def test_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter is left"):
        build_optimiser(nn.Linear(1, 1), TrainingConfig(frozen=("",), optimiser=SgdConfig()))


def test_every_pass_sees_every_scene_once() -> None:
    places = [sample_index_at(position, 7, seed=0) for position in range(21)]
    for draw in range(3):
        assert sorted(p.index for p in places if p.draw == draw) == list(range(7))
    assert [p.index for p in places[:7]] != [p.index for p in places[7:14]]


def test_two_processes_share_what_one_process_sees() -> None:
    alone = list(Sampler(Schedule((5,)), 0, RankShare(4, 1, 0), 3, 9))
    ranks = [list(Sampler(Schedule((5,)), 0, RankShare(4, 2, rank), 3, 9)) for rank in range(2)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == alone
    parts = list(Sampler(Schedule((5,)), 0, RankShare(4, 1, 0, n_parts=2), 3, 9))
    assert [parts[2 * i] + parts[2 * i + 1] for i in range(6)] == alone


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        RankShare(3, 2, 0)


STAGES = (("prompt.", "stem."), ("enc.0.",), ("enc.1.",))


def _staged() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "prompt": nn.Linear(2, 2),
            "stem": nn.Linear(2, 2),
            "enc": nn.ModuleList([nn.Linear(2, 2), nn.BatchNorm1d(2)]),
            "head": nn.Linear(2, 2),
        }
    )


def _groups(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, dict]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group for group in optimiser.param_groups for p in group["params"]}


def test_the_rate_of_the_encoder_falls_from_stage_to_stage() -> None:
    """As in BEiT: the head has the full rate, the last stage the decay once, the first one most often."""
    settings = AdamwConfig(rate=0.1, encoder_rate=0.5, layer_decay=0.8)
    model = _staged()
    optimiser = build_optimiser(model, TrainingConfig(optimiser=settings), STAGES)
    set_lr(optimiser, lr_at(0, 10, PolyConfig()))
    rates = {name: group["lr"] for name, group in _groups(model, optimiser).items()}
    assert rates["head.weight"] == pytest.approx(0.1)
    assert rates["enc.1.weight"] == pytest.approx(0.05 * 0.8)
    assert rates["enc.0.bias"] == pytest.approx(0.05 * 0.8**2)
    assert rates["stem.weight"] == rates["prompt.bias"] == pytest.approx(0.05 * 0.8**3)


def test_the_encoder_may_warm_up_on_its_own() -> None:
    model = _staged()
    config = TrainingConfig(optimiser=AdamwConfig(rate=0.1, encoder_warmup=0.5))
    optimiser = build_optimiser(model, config, STAGES)
    found = []
    for done in (0.1, 0.25, 0.5, 1.0):
        set_lr(optimiser, lr_at(0, 10, PolyConfig()), done)
        groups = _groups(model, optimiser)
        assert groups["head.weight"]["lr"] == pytest.approx(0.1)
        found.append(groups["stem.weight"]["lr"])
    assert found == pytest.approx([0.02, 0.05, 0.1, 0.1])


def test_weight_decay_may_leave_out_biases_and_norms() -> None:
    model = _staged()
    config = TrainingConfig(optimiser=AdamwConfig(weight_decay=0.3, decay_norms=False))
    groups = _groups(model, build_optimiser(model, config, STAGES))
    decays = {name: group["weight_decay"] for name, group in groups.items()}
    assert decays["stem.weight"] == decays["head.weight"] == 0.3
    assert decays["stem.bias"] == decays["enc.1.weight"] == decays["enc.1.bias"] == 0.0


def test_by_default_all_parameters_are_one_group() -> None:
    assert len(build_optimiser(_staged(), TrainingConfig(), STAGES).param_groups) == 1
