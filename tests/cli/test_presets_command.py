"""`ponder presets`: list, show, explain."""

from __future__ import annotations

import json

import pytest
import yaml

from ponder_cli.presets import checked, read_layer, shipped_presets
from ponderv2.workflows.config import PretrainConfig


def test_the_list_names_every_shipped_preset(run, tmp_path):
    result = run("presets", "--json", tmp_path / "list.json")
    listed = {row["preset"] for row in json.loads((tmp_path / "list.json").read_text())}
    assert result.exit_code == 0
    assert listed == {f"{preset.command}/{preset.name}" for preset in shipped_presets()}


def test_list_is_understood_as_a_word_too(run):
    assert run("presets", "list").stdout == run("presets").stdout


def test_what_is_shown_can_be_used_as_a_preset(run, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(run("presets", "show", "pretrain/scannet-official").stdout)
    (preset,) = (item for item in shipped_presets("pretrain") if item.name == "scannet-official")
    expected = checked(read_layer(preset.path, "pretrain"), PretrainConfig)
    assert checked(read_layer(file, "pretrain"), PretrainConfig) == expected


@pytest.mark.parametrize("name", ["räume", "run[/x]", "two words", "a" * 150])
def test_own_presets_are_read_from_any_path(run, tmp_path, name):
    file = tmp_path / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text("extends: demo\ntraining: {steps: 7}\n")
    result = run("presets", "show", "pretrain", file)
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout)["training"]["steps"] == 7


def explain(run, tmp_path, *words):
    file = tmp_path / "explained.json"
    assert run("presets", "explain", *words, "--json", file).exit_code == 0
    return {item["key"]: item for item in json.loads(file.read_text())}


def test_explain_names_file_line_option_and_default(run, tmp_path):
    values = explain(run, tmp_path, "pretrain/scannet-official", "--set", "training.steps=9")
    assert values["training.steps"]["origin"] == "--set training.steps=9"
    assert values["training.steps"]["value"] == 9
    assert values["training.precision"]["origin"].startswith("presets/pretrain/scannet-official.yaml:")
    assert values["data.voxel.size"]["origin"].startswith("presets/pretrain/indoor.yaml:")
    assert values["training.max_bad_steps"]["origin"] == "default of TrainingConfig"
    assert values["training.max_bad_steps"]["meaning"].startswith("Steps in a row")


def test_the_lines_that_explain_names_hold_the_keys(run, tmp_path):
    (preset,) = (item for item in shipped_presets("pretrain") if item.name == "demo")
    lines = preset.path.read_text().splitlines()
    for item in explain(run, tmp_path, "pretrain/demo").values():
        file, _, line = item["origin"].partition(":")
        if file.endswith("demo.yaml"):
            assert item["key"].split(".")[-1] in lines[int(line) - 1]


def test_another_kind_replaces_the_settings_of_the_former(run, tmp_path):
    values = explain(run, tmp_path, "pretrain/demo", "--set", "training.optimiser.kind=sgd")
    assert values["training.optimiser.rate"]["origin"] == "default of SgdConfig"
    assert "training.optimiser.beta1" not in values


def test_a_choice_keeps_its_default_kind_when_only_a_number_of_it_is_set(run, tmp_path):
    values = explain(run, tmp_path, "finetune/demo", "--set", "training.schedule={warmup: 0.2}")
    assert values["training.schedule.kind"]["value"] == "one_cycle"
    file = tmp_path / "mine.yaml"
    file.write_text("cameras: {stride: 3}\n")
    assert explain(run, tmp_path, "render", file)["cameras.kind"]["value"] == "own"


def test_json_on_standard_output_is_all_that_stands_there(run):
    result = run("presets", "show", "render/demo", "--json", "-")
    assert json.loads(result.stdout)["cameras"]["kind"] == "own"


def test_an_unknown_command_is_wrong_usage(run):
    assert run("presets", "show", "prertain/demo").exit_code == 2
