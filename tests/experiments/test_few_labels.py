"""The grid of rates, and jobs of the experiments with few labels; nothing is trained here."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import instance_rooms, joint_rooms
from experiments.few_labels import FewLabels, Trial
from experiments.gain_figures import Figures
from ponder_cli.presets import load_preset
from ponderv2.workflows.config import FinetuneConfig

PARTS = {"a": Path("a"), "b": Path("b")}
RATES = (1e-2, 1e-3)


@pytest.fixture
def few(tmp_path: Path) -> FewLabels:
    figures = Figures(tmp_path / "results.json")
    return FewLabels("rooms_joint", tmp_path, PARTS, ("miou", "macc"), tmp_path, figures)


def put(few: FewLabels, trial: Trial, **values: float) -> None:
    """As if it had been trained and measured; val decides, and the test says something else."""
    for part in PARTS:
        for metric in few.metrics:
            few.figures.put(few.key("val", trial, part, metric), values[part], "")
            few.figures.put(few.key("test", trial, part, metric), 1 - values[part], f"at {trial.rate:g}")


def test_validation_rooms_with_the_first_seed_choose_the_rate(few: FewLabels) -> None:
    trials = [Trial("scratch", (), "20 points", (), rate, seed) for rate in RATES for seed in (0, 1)]
    for trial, (a, b) in zip(trials, [(0.2, 0.4), (0.9, 0.9), (0.3, 0.5), (0.1, 0.1)], strict=True):
        put(few, trial, a=a, b=b)
    job = few.job(trials[0], RATES, 1)
    assert not job.is_done()
    job.run()
    assert job.is_done()
    found = {tuple(words): (value, line) for words, value, line in few.figures.rows("full")}
    assert found["scratch", "20 points", "a", "miou", "1"] == (0.9, "at 0.001")


def test_runs_of_a_seed_start_from_its_encoder() -> None:
    own = Trial("pre-trained", (Path("x-0"), Path("x-1")), "", (), 1e-3, 1)
    assert own.checkpoint == Path("x-1")
    assert Trial("pre-trained", (Path("x"),), "", (), 1e-3, 1).checkpoint == Path("x")
    assert Trial("scratch", (), "", (), 1e-3, 1).checkpoint is None


def test_every_figure_of_the_experiments_once_and_every_budget_is_a_setting(few: FewLabels) -> None:
    own = joint_rooms.Changes([], [])
    for found in (joint_rooms.jobs(few, 2, 2, own), instance_rooms.jobs(few, (Path("x"),), 3, 2, [])):
        given = [key for job in found for key in job.gives]
        assert len(given) == len(set(given))
        assert [job.name[-1] for job in found] == sorted(job.name[-1] for job in found)
    ways = [change for changes in joint_rooms.WAYS.values() for change in changes]
    for labels in joint_rooms.BUDGETS.values():
        load_preset("finetune", "rooms_joint", [labels, *ways], FinetuneConfig)
    for labels in instance_rooms.BUDGETS.values():
        load_preset("finetune", "rooms_instance", [labels], FinetuneConfig)


def test_the_table_names_parts_and_metrics(few: FewLabels, capsys: pytest.CaptureFixture[str]) -> None:
    trial = Trial("scratch", (), "20 points", (), 1e-2)
    put(few, trial, a=0.25, b=0.5)
    few.job(trial, (1e-2,), 0).run()
    few.print_table()
    printed = capsys.readouterr().out
    assert "| a miou | a macc | b miou | b macc |" in printed
    assert "| 20 points | scratch | 75.0 | 75.0 | 50.0 | 50.0 |" in printed and "scratch: at 0.01" in printed
