"""The training step against its slow twins, and how often it makes the host wait for numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks.step_parts import Clock, forward
from ponderv2.geometry import interpolation as weighted_rows
from ponderv2.models.pretext import PretextModel
from ponderv2.renderer import decoder
from ponderv2.renderer.sampling import draw_noise_of_scenes
from ponderv2.scenes.batch import Batch
from tests.models.test_pretext_conditions import batch_of, config, step_of

WAITS = {
    "item",
    "tolist",
    "nonzero",
    "masked_select",
    "unique",
    "unique_consecutive",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "cpu",
}
"""What makes a host wait for a GPU."""
MOST_WAITS = 75
"""In one step of a net of two stages; each further stage adds about ten, for its kernel map."""


def every_cell_first(model: PretextModel, batch: Batch) -> Tensor:
    """The loss with the features of every cell of the volume, as `build_volume` makes them."""
    encoded = model.build_volume(batch, torch.Generator().manual_seed(1))
    rays = model.rays(batch, encoded.frame)
    counts = torch.bincount(rays.rays.scene, minlength=2).tolist()
    from ponderv2.randomness import scene_generators

    generators = scene_generators(torch.Generator().manual_seed(1), 2)
    noise = draw_noise_of_scenes(counts, generators, model.config.renderer, torch.device("cpu"))
    output = model.renderer(encoded.volume, rays.rays, noise, target_distance=rays.targets.distance)
    return model.compare(batch, encoded, rays, output).losses.total()


@pytest.mark.parametrize("deep", [False, True])
def test_features_of_read_cells_alone_give_the_loss_and_gradients_of_all(
    rng: torch.Generator, deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config()
    if deep:
        field = settings.renderer.field.model_copy(
            update={
                name: getattr(settings.renderer.field, name).model_copy(update={"n_blocks": 2})
                for name in ("sdf", "color", "semantic")
            }
        )
        settings = settings.model_copy(
            update={"renderer": settings.renderer.model_copy(update={"field": field})}
        )
    batch = batch_of("ScanNet", rng)
    torch.manual_seed(0)
    model = PretextModel(settings)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    expected_loss = every_cell_first(model, batch)
    expected = torch.autograd.grad(
        expected_loss, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    model.load_state_dict(state)
    monkeypatch.setattr(decoder, "BLOCK_POINTS", 50)
    monkeypatch.setattr(weighted_rows, "BLOCK_POINTS", 30)
    loss = step_of(model, batch).losses.total()
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=0)
    largest = max(float(gradient.norm()) for gradient in expected)
    for name, one, other in zip(parameters, found, expected, strict=True):
        assert float((one - other).norm()) <= 1e-3 * float(other.norm()) + 1e-5 * largest, name


def test_blocks_of_points_give_what_all_points_give(rng: torch.Generator) -> None:
    points = torch.randn(100, 3, generator=rng, dtype=torch.float64).requires_grad_()
    matrix = torch.randn(3, 3, generator=rng, dtype=torch.float64).requires_grad_()

    def run(part: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(part @ matrix), part.square().sum(1)

    def total(outputs: tuple[Tensor, ...]) -> Tensor:
        return outputs[0].square().sum() + outputs[1].sum()

    found = torch.autograd.grad(total(decoder.in_blocks(run, points, block=7)), (points, matrix))
    expected = torch.autograd.grad(total(run(points)), (points, matrix))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_measured_step_is_the_step_of_the_model(rng: torch.Generator) -> None:
    batch = batch_of("S3DIS", rng)
    model = PretextModel(config())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    measured = forward(model, batch, torch.Generator().manual_seed(1), Clock())
    model.load_state_dict(state)
    assert torch.equal(measured, step_of(model, batch).losses.total())


class _Waits(TorchFunctionMode):
    """Counts the calls that need a number on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in WAITS:
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_step_waits_for_few_numbers_however_many_rays_and_voxels_there_are(rng: torch.Generator) -> None:
    batch = batch_of("ScanNet", rng)
    model = PretextModel(config())
    with _Waits() as waits:
        step_of(model, batch).losses.total().backward()
    assert 0 < waits.calls.total() <= MOST_WAITS, waits.calls
