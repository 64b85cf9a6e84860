"""Merging of settings, and reading of YAML that may be hostile."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_cli.layers import MAX_BYTES, Layer, layered, parse_override, parse_value, read_yaml, with_override
from ponder_cli.presets import read_layer
from ponderv2.errors import PresetError


def mappings(values):
    return st.dictionaries(st.sampled_from("abc"), values, max_size=3)


Mapping = mappings(st.recursive(st.integers() | st.none(), mappings, max_leaves=8))


@given(Mapping, Mapping)
def test_what_is_above_is_found_in_the_merged_settings(below, above):
    def agrees(part, whole):
        if isinstance(part, dict):
            return all(key in whole and agrees(item, whole[key]) for key, item in part.items())
        return part == whole

    assert agrees(above, layered(Layer(below), Layer(above)).values)


@given(Mapping, Mapping)
def test_merging_edits_neither_of_its_inputs(below, above):
    texts = repr(below), repr(above)
    layered(Layer(below), Layer(above))
    assert (repr(below), repr(above)) == texts


def test_the_origin_of_a_replaced_value_is_that_of_the_upper_layer():
    below = Layer({"a": {"b": 1, "c": 2}}, {("a", "b"): "low:1", ("a", "c"): "low:2"})
    merged = layered(below, Layer({"a": {"b": 3}}, {("a", "b"): "high:1"}))
    assert merged.origin(("a", "b")) == "high:1"
    assert merged.origin(("a", "c")) == "low:2"


def test_an_override_reaches_into_a_default_list():
    layer = with_override(Layer(), parse_override("a.1.b=5"), lambda _: {"a": [{"b": 0}, {"b": 1}]})
    assert layer.values == {"a": [{"b": 0}, {"b": 5}]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1.0e-3", 0.001),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("a b", "a b"),
        ("", None),
    ],
)
def test_values_are_typed_as_yaml_types_them(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x [1]\nb: *x\n", "alias"),
        ("a: !!python/object/apply:os.system [echo]\n", "not YAML"),
        ("[" * 100 + "]" * 100, "nested deeper"),
        ("a: 1\na: 2\n", "sets 'a' twice"),
        ("- 1\n", "not a mapping"),
        ("a: [1\n", ":2"),
        ("#" * (MAX_BYTES + 1), "larger than"),
        ("a: 2024-99-99", "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_hostile_or_broken_yaml_is_refused_with_a_reason(tmp_path, text, reason):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(PresetError, match=reason.replace("[", r"\[")):
        read_yaml(file)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("yaml") / "x.yaml"
    file.write_bytes(content)
    with contextlib.suppress(PresetError):
        assert isinstance(read_yaml(file).values, dict)


def test_presets_that_extend_each_other_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(PresetError, match="circle"):
        read_layer(tmp_path / "a.yaml", "pretrain")


def test_a_later_parent_wins_over_an_earlier_one(tmp_path):
    (tmp_path / "a.yaml").write_text("x: 1\ny: 1\n")
    (tmp_path / "b.yaml").write_text("y: 2\n")
    (tmp_path / "c.yaml").write_text("extends: [a.yaml, b.yaml]\nz: 3\n")
    assert read_layer(tmp_path / "c.yaml", "pretrain").values == {"x": 1, "y": 2, "z": 3}
