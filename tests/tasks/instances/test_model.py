"""The model that finds objects: wiring, learning, published names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from ponderv2.encoder.config import PromptedSparseUNetConfig, SparseUNetConfig
from ponderv2.heads.config import GroupingConfig
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.training.weights import strip_wrappers

SMALL = {"base_channels": 8, "channels": (8, 12, 12, 8), "layers": (1, 1, 1, 1)}
SIZE = 0.1


def config(**changes) -> InstancesModelConfig:
    values = {"encoder": SparseUNetConfig(**SMALL), "n_classes": 3, "ignored_classes": (0,)} | changes
    return InstancesModelConfig(**values, grouping=GroupingConfig(min_linked=5, more_than=5))


@pytest.fixture
def batch(rng: torch.Generator) -> Batch:
    """Two scenes of a floor (class 0) and three cubes; features tell class and the way to the centre."""
    cube = torch.cartesian_prod(*[torch.arange(5)] * 3)
    floor = torch.cartesian_prod(torch.arange(24), torch.arange(24), torch.arange(1))
    places = [torch.tensor([2, 2, 3]), torch.tensor([12, 4, 3]), torch.tensor([6, 14, 3])]
    cells = torch.cat([floor, *(cube + place for place in places)])
    segment = torch.cat([torch.zeros(576), torch.ones(125), torch.full((125,), 2), torch.ones(125)]).long()
    instance = torch.cat([torch.full((576,), 3), *(torch.full((125,), i) for i in range(3))]).long()
    centre = torch.stack([(cells[instance == n].float() + 0.5).mean(0) * SIZE for n in range(4)])[instance]
    coord = (cells + 0.5) * SIZE
    feature = torch.cat([torch.nn.functional.one_hot(segment, 3).float(), 10 * (centre - coord)], dim=1)
    one = len(cells)
    return Batch(
        coord=coord.repeat(2, 1),
        grid_coord=cells.repeat(2, 1),
        feature=feature.repeat(2, 1),
        offset=torch.tensor([one, 2 * one]),
        segment=segment.repeat(2),
        units_per_metre=torch.ones(2),
        condition="toy",
        names=("a", "b"),
        instance=torch.cat([instance, instance + 4]),
    )


def test_every_parameter_gets_a_gradient(batch: Batch) -> None:
    model = InstancesModel(config())
    step = model(batch)
    assert step.logits.shape == (len(batch.coord), 3) and step.offset.shape == batch.coord.shape
    step.losses.total().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_batch_without_objects_still_gives_every_parameter_a_gradient(batch: Batch) -> None:
    model = InstancesModel(config(ignored_classes=(0, 1, 2)))
    model(batch).losses.total().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_frozen_encoder_leaves_only_the_heads_to_training() -> None:
    model = InstancesModel(config(freeze_encoder=True))
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"seg_head", "bias_head"} and not model.train().backbone.training


def test_with_true_classes_and_offsets_the_objects_are_the_true_ones(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three cubes in each of two scenes in one place: six objects, in the order of their first points."""
    model = InstancesModel(config()).eval()
    logits = 9.0 * torch.nn.functional.one_hot(batch.segment, 3).float()
    monkeypatch.setattr(model, "predict", lambda _: (logits, 0.97 * batch.feature[:, 3:] / 10))
    found, same = model.predict_instances(batch, SIZE)
    assert same is logits and found.category.tolist() == [1, 2, 1, 1, 2, 1]
    expected = torch.tensor([0, 1, 2, -1, 3, 4, 5, -1])[batch.instance]
    assert torch.equal(found.member, expected)
    assert found.score.tolist() == pytest.approx([math.exp(9) / (math.exp(9) + 2)] * 6)


@pytest.mark.parametrize("name", ["scannet", "scannet200"])
def test_model_has_the_published_names_and_shapes(request: pytest.FixtureRequest, name: str) -> None:
    folder: Path = request.config.getoption("--statedict-dir")
    path = folder / f"statedict_ft_insseg_pointgroup_{name}.json"
    if not path.is_file():
        pytest.skip(f"no listing {path}; choose its folder with --statedict-dir")
    entries = json.loads(path.read_text())["state_dict"]
    expected = strip_wrappers({key: torch.empty(entry["shape"]) for key, entry in entries.items()})
    n_classes = int(expected["seg_head.weight"].shape[0])
    with torch.device("meta"):
        model = InstancesModel(InstancesModelConfig(encoder=PromptedSparseUNetConfig(), n_classes=n_classes))
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert own == {key: tuple(value.shape) for key, value in expected.items()}
