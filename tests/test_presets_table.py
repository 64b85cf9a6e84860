"""The table of presets names every preset once, and nothing else."""

from __future__ import annotations

import re

import pytest

from ponder_cli.presets import load_preset, preset_folder, shipped_presets
from ponderv2.workflows.config import FinetuneConfig

TABLE = (preset_folder() / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+/[\w-]+)` \|", TABLE, flags=re.MULTILINE)
NUMBER = re.compile(r"\d\d\.\d")


def test_every_preset_has_one_row_and_every_row_a_preset():
    assert sorted(ROWS) == sorted(f"{preset.command}/{preset.name}" for preset in shipped_presets())


@pytest.mark.parametrize("row", [row for row in ROWS if "_lr" in row or "_la" in row])
def test_numbers_of_few_labels_are_those_that_the_preset_names(row: str):
    command, _, name = row.partition("/")
    config = load_preset(command, name, None, FinetuneConfig)
    line = next(line for line in TABLE.splitlines() if line.startswith(f"| `{row}` |"))
    assert set(NUMBER.findall(config.description)) == set(NUMBER.findall(line))


@pytest.mark.parametrize("row", [row for row in ROWS if row.endswith("_scratch")])
def test_scratch_presets_name_their_encoder_and_have_a_partner(row: str):
    command, _, name = row.partition("/")
    config = load_preset(command, name, None, FinetuneConfig)
    partner = load_preset(command, name.removesuffix("_scratch"), None, FinetuneConfig)
    assert config.model.encoder is not None and config.model.encoder.kind == "sparse_unet"
    assert config.model.kind == partner.model.kind and config.scenes == partner.scenes
