"""The order of the jobs, and the file of figures that an interrupted experiment leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.gain_figures import Figures, print_table, shown
from experiments.gain_jobs import (
    BUDGETS,
    CEILING,
    FIRST,
    PRETRAINED,
    RATES,
    Bench,
    chosen_rate,
    jobs,
    rate_key,
)
from experiments.jobs import command
from ponder_cli.presets import load_preset
from ponderv2.workflows.config import FinetuneConfig, PrepareConfig, PretrainConfig


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, tmp_path / "rooms", Figures(tmp_path / "results.json"))


def test_first_seed_first_and_every_figure_once(bench: Bench) -> None:
    found = jobs(bench, 2)
    names = [job.name for job in found]
    assert len(names) == len(set(names))
    given = [key for job in found for key in job.gives]
    assert len(given) == len(set(given))
    assert names[0] == f"pretrain, {FIRST}, seed 0" and names[1] == f"probe, {FIRST}, 20 points, seed 0"
    last_of_first = max(i for i, name in enumerate(names) if name.endswith("seed 0"))
    assert last_of_first < min(i for i, name in enumerate(names) if name.endswith("seed 1"))


def test_finished_figures_are_not_measured_again(bench: Bench) -> None:
    job = jobs(bench, 1)[0]
    assert not job.is_done()
    bench.figures.put(("start", FIRST, "0"), 12.0, "ponder pretrain")
    assert job.is_done() and Figures(bench.figures.path).value(("start", FIRST, "0")) == 12.0


def test_the_rate_of_a_kind_of_budget_comes_from_its_smallest(bench: Bench) -> None:
    for start, points, rooms in (("random", 2, 0), (FIRST, 1, 2)):
        for budget, best in (("20 points", points), ("1 rooms", rooms)):
            for number, rate in enumerate(RATES[budget]):
                bench.figures.put(rate_key(start, budget, rate), 0.1 if number == best else 0.05, "")
    assert chosen_rate(bench, "random", "200 points") == RATES["20 points"][2]
    assert chosen_rate(bench, "random", "4 rooms") == RATES["1 rooms"][0]
    assert chosen_rate(bench, "clusters", "200 points") == RATES["20 points"][1]
    assert chosen_rate(bench, CEILING, "1 rooms") == RATES["1 rooms"][2]


def test_the_presets_fit_together() -> None:
    """A probe sees what the encoder was trained on, and every budget is a setting."""
    encoders = {
        str(load_preset("pretrain", one, [], PretrainConfig).model.encoder) for one in PRETRAINED.values()
    }
    downstream = load_preset("finetune", "rooms", list(BUDGETS.values())[:1], FinetuneConfig)
    assert encoders == {str(downstream.model.encoder)}
    plain = load_preset("pretrain", "rooms_plain", [], PretrainConfig)
    assert (plain.data.voxel, plain.data.features) == (downstream.data.voxel, downstream.data.features)
    assert load_preset("prepare", "rooms", [], PrepareConfig).out == plain.scenes


def test_table_and_commands(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown([0.0, 0.1, 0.2]) == "10.0 ± 10.0" and shown([]) == "-"
    for seed in range(3):
        bench.figures.put(("linear", FIRST, "20 points", str(seed)), 0.1 * seed, f"ponder eval {seed}")
    print_table(bench.figures)
    printed = capsys.readouterr().out
    assert "| 10.0 ± 10.0 |" in printed and "ponder eval 0" in printed
    assert command("eval", "run", changes=["a=[1, 2]"]) == "ponder eval run --set 'a=[1, 2]'"
