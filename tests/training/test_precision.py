"""In which number type a run computes, and that it says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ponder_cli.presets import load_preset, shipped_presets
from ponderv2.training import devices as precision
from ponderv2.training import loop
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.config import TrainingConfig
from ponderv2.training.devices import precision_in_use
from ponderv2.training.distributed import Member, make_fabric
from ponderv2.training.loop import train
from ponderv2.workflows.config import CONFIG_OF_COMMAND
from tests.training.toy import ToyModel, toy_job
from tests.workflows.heard import Heard


def config(name: str, **more: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"precision": name, **more})


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_cpu_computes_half_precision_in_float32_and_says_so(name: str) -> None:
    found = precision_in_use(config(name), "cpu")
    assert found.name == "32" and str(found) == "32"
    assert found.note is not None and name in found.note and "float32" in found.note


def test_bf16_on_a_cpu_has_a_setting_of_its_own() -> None:
    found = precision_in_use(config("bf16", bf16_on_cpu=True), "cpu")
    assert (found.name, found.note) == ("bf16", None)
    assert precision_in_use(config("fp16", bf16_on_cpu=True), "cpu").name == "32"


def test_float32_needs_no_note() -> None:
    assert precision_in_use(config("32"), "cpu").note is None


@pytest.mark.parametrize("installed", [True, False])
def test_a_gpu_keeps_what_was_asked_for_and_names_what_spconv_lacks(monkeypatch, installed: bool) -> None:
    monkeypatch.setattr(precision, "spconv_installed", lambda: installed)
    found = precision_in_use(config("bf16"), "cuda")
    assert found.name == "bf16"
    assert str(found) == ("bf16 (sparse convolutions: 32)" if installed else "bf16")
    assert (found.note is not None) == installed
    assert precision_in_use(config("fp16"), "cuda").note is None


class _TypeOfProducts(nn.Linear):
    """Remembers in which type it computed."""

    types: set[torch.dtype] = set()  # noqa: RUF012 - shared on purpose

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        result = super().forward(input)
        self.types.add(result.dtype)
        return result.float()


@pytest.mark.parametrize(("force", "kind"), [(False, torch.float32), (True, torch.bfloat16)])
def test_a_run_computes_in_the_type_that_it_reports(tmp_path: Path, force: bool, kind: torch.dtype) -> None:
    job = toy_job(tmp_path, 2, precision="bf16", bf16_on_cpu=force)
    assert isinstance(job.model, ToyModel)
    watched = _TypeOfProducts(4, 16)
    job.model.first = watched
    watched.types.clear()
    heard = Heard()
    outcome = train(job, make_fabric(job.training, Member(), 1), heard)
    assert watched.types == {kind}
    name = "bf16" if force else "32"
    assert outcome.precision == name
    assert json.loads((tmp_path / "environment.json").read_text())["precision"] == name
    assert load_checkpoint(outcome.last).versions["precision"] == name
    assert len([text for text in heard.noted if "float32" in text]) == (0 if force else 1)


def test_a_run_that_continues_in_another_precision_says_so(tmp_path: Path) -> None:
    first = toy_job(tmp_path, 2, precision="bf16", bf16_on_cpu=True)
    outcome = train(first, make_fabric(first.training, Member(), 1), Heard())
    second = toy_job(tmp_path, 3, precision="bf16")
    heard = Heard()
    resume = load_checkpoint(outcome.last)
    loop.train(second, make_fabric(second.training, Member(), 1), heard, resume)
    assert heard.warned == ["the run was started in precision bf16 and continues in 32"]


@pytest.mark.parametrize("preset", [*shipped_presets("pretrain"), *shipped_presets("finetune")], ids=str)
def test_no_shipped_preset_asks_a_cpu_for_half_precision(preset) -> None:
    settings = load_preset(preset.command, preset.name, None, CONFIG_OF_COMMAND[preset.command])
    assert precision_in_use(settings.training, "cpu").name == "32"  # type: ignore[attr-defined]
