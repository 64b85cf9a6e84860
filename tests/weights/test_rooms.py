"""The encoder that ships: what its card states, and features of clouds as other people have them."""

from __future__ import annotations

import hashlib
import re
import socket

import pytest
import torch

import ponderv2
from ponderv2 import weights
from ponderv2.tasks.checkpoints import open_checkpoint
from ponderv2.workflows import inspect

MOST_BYTES = 5_000_000


def facts(name: str) -> dict[str, str]:
    """The rows of the first table of a model card."""
    card = weights.weights_file(name).with_suffix(".md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| ([^|]+?) +\| `?([^|`]+?)`? +\|", card, flags=re.MULTILINE))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection fails the test."""

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("name", weights.NAMES)
def test_the_card_states_what_the_file_holds(name: str):
    file, card, found = weights.weights_file(name), facts(name), inspect.run(weights.weights_file(name))
    data = file.read_bytes()
    assert len(data) <= MOST_BYTES and int(card["bytes"].replace(",", "")) == len(data)
    assert card["SHA-256"] == hashlib.sha256(data).hexdigest() == found.digest
    assert int(card["parameters"].replace(",", "")) == found.parameters
    assert card["inputs of a point"] == ", ".join(found.inputs)
    assert float(card["voxels"].split()[0]) == found.voxel_size
    assert int(card["channels of a feature"]) == open_checkpoint(file).encoder_settings["channels"][-1]
    assert card["licence"] == "MIT" and found.task == "encoder" and found.differences == []


def test_it_was_trained_with_hidden_colours_and_normals():
    config = open_checkpoint(weights.weights_file("rooms")).config
    assert {"color_drop", "normal_drop"} <= {step["kind"] for step in config["data"]["augment"]}


@pytest.mark.parametrize("known", [(), ("color",), ("normal",), ("color", "normal")])
def test_clouds_with_and_without_colours_and_normals_have_features(known: tuple[str, ...]):
    generator = torch.Generator().manual_seed(0)
    coord = torch.rand(2000, 3, generator=generator) * torch.tensor([4.0, 3.0, 0.02])
    color = torch.rand(2000, 3, generator=generator) * 255 if "color" in known else None
    normal = torch.tensor([0.0, 0.0, 1.0]).expand(2000, 3) if "normal" in known else None
    feature = ponderv2.load().features(ponderv2.PointCloud(coord, color, normal))
    assert feature.shape == (2000, int(facts("rooms")["channels of a feature"]))
    assert bool(feature.isfinite().all()) and float(feature.std(dim=0).max()) > 0
