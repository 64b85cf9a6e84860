"""The experiment on depth: its jobs, without running them."""

from __future__ import annotations

from pathlib import Path

from experiments.gain_figures import Figures
from experiments.streets_depth import BUDGET, METRICS, ONCE, PRETRAINED, SCRATCH, STARTS, Bench, jobs
from ponder_cli.presets import load_preset
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig


def test_every_figure_has_one_job_and_every_setting_exists(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tmp_path / "streets", Figures(tmp_path / "results.json"))
    found = jobs(bench, 3)
    gives = [key for job in found for key in job.gives]
    assert len(gives) == len(set(gives)) and len({job.name for job in found}) == len(found)
    assert sum(key[0] == "linear" for key in gives) == len(METRICS) * (3 * len(STARTS) + len(ONCE))
    made: set[str] = set()
    for key in gives:  # nothing is read out of what is not pre-trained yet
        made |= {key[1]} if key[0] == "start" else set()
        assert key[1] in made | set(SCRATCH)
    for changes in PRETRAINED.values():
        load_preset("pretrain", "streets_camera", [*changes, *bench.steps("pretrain")], PretrainConfig)
    for changes in SCRATCH.values():
        load_preset("finetune", "streets_depth", [*changes, *BUDGET, *bench.steps("full")], FinetuneConfig)
