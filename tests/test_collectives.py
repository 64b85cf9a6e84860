"""Sums, means and batch normalisation over real gloo processes, against one process with everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ponderv2.collectives import global_mean, process_rank, single_process, sum_over_processes, world_size
from ponderv2.randomness import make_generator, scene_generators
from ponderv2.sparse.normalisation import BatchNorm
from ponderv2.training.distributed import free_port
from tests.training.processes import join, run_ranks

ROWS = (7, 12)


def _values(shape: tuple[int, ...] = ()) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(sum(ROWS), 5, *shape, generator=generator, dtype=torch.float64) * 3 + 10


def _normalise(rank: int, port: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    join(rank, port, 2)
    layer = _layer()
    inputs = _values(shape).split(list(ROWS))[rank].clone().requires_grad_()
    outputs = layer(inputs)
    _loss(outputs, rank).backward()
    assert inputs.grad is not None and layer.weight.grad is not None
    gradients = {"inputs": inputs.grad, "weight": layer.weight.grad, "outputs": outputs.detach()}
    state = {f"state.{name}": value for name, value in layer.state_dict().items()}
    return {name: value.numpy() for name, value in {**gradients, **state}.items()}


def _layer() -> BatchNorm:
    layer = BatchNorm(5, eps=1e-3, momentum=0.01).double()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2.0, 5))
        layer.bias.copy_(torch.linspace(-1.0, 1.0, 5))
    return layer


def _loss(outputs: torch.Tensor, rank: int) -> torch.Tensor:
    return (outputs.sin() * (rank + 1)).sum()


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_normalisation_over_two_processes_equals_torch_on_all_rows(shape: tuple[int, ...]) -> None:
    ranks = run_ranks(_normalise, 2, free_port(), shape)
    inputs = _values(shape).requires_grad_()
    truth: nn.Module = nn.BatchNorm2d(5, 1e-3, 0.01) if shape else nn.BatchNorm1d(5, 1e-3, 0.01)
    truth = truth.double()
    truth.load_state_dict(_layer().state_dict())
    outputs = truth(inputs)
    sum(_loss(part, rank) for rank, part in enumerate(outputs.split(list(ROWS)))).backward()
    assert inputs.grad is not None
    both = {name: np.concatenate([rank[name] for rank in ranks]) for name in ("outputs", "inputs")}
    np.testing.assert_allclose(both["outputs"], outputs.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(both["inputs"], inputs.grad.numpy(), rtol=1e-8, atol=1e-10)
    weight_gradient = ranks[0]["weight"] + ranks[1]["weight"]
    np.testing.assert_allclose(weight_gradient, truth.weight.grad.numpy(), rtol=1e-10)  # type: ignore[union-attr]
    for name, value in truth.state_dict().items():
        for rank in ranks:
            np.testing.assert_allclose(rank[f"state.{name}"], value.numpy(), rtol=1e-12)


def test_one_process_is_exactly_torch(rng: torch.Generator) -> None:
    values = torch.randn(9, 5, generator=rng)
    ours, truth = BatchNorm(5), nn.BatchNorm1d(5)
    assert torch.equal(ours(values), truth(values))
    assert list(ours.state_dict()) == list(truth.state_dict())
    ours.eval(), truth.eval()
    assert torch.equal(ours(values), truth(values))


def test_one_row_without_stored_statistics_is_refused_as_torch_does() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm(5, track_running_stats=False)(torch.zeros(1, 5))


def _mean_gradient(rank: int, port: int) -> tuple[float, float, list[float]]:
    join(rank, port, 2)
    x = torch.tensor([1.0, 2.0, 4.0])[: 1 + 2 * rank].clone().requires_grad_()
    mean = global_mean((x * x).sum(), torch.tensor(float(len(x))))
    mean.backward()
    total = sum_over_processes(torch.tensor(float(rank + 1)))
    assert x.grad is not None
    return float(mean), float(total), x.grad.tolist()


def test_global_mean_averages_to_the_mean_over_all_rows() -> None:
    first, second = run_ranks(_mean_gradient, 2, free_port())
    truth = (1.0 + 1.0 + 4.0 + 16.0) / 4
    assert (first[0] + second[0]) / 2 == pytest.approx(truth)
    assert first[1] == second[1] == 3.0
    # Averaged over processes, as distributed training does: d mean / d x = 2 x / 4.
    assert [g / 2 for g in first[2] + second[2]] == pytest.approx([0.5, 0.5, 1.0, 2.0])


def test_a_mean_over_nothing_is_zero() -> None:
    assert float(global_mean(torch.tensor(0.0), torch.tensor(0.0))) == 0.0


def _scene_draws(rank: int, port: int) -> list[float]:
    join(rank, port, 2)
    draws = [float(torch.rand((), generator=g)) for g in scene_generators(make_generator("step", 1), 1)]
    torch.distributed.barrier()  # Process 0 holds the store that the other one may still be joining.
    return draws


def test_two_processes_draw_for_their_scenes_what_one_process_draws() -> None:
    first, second = run_ranks(_scene_draws, 2, free_port())
    alone = [float(torch.rand((), generator=g)) for g in scene_generators(make_generator("step", 1), 2)]
    assert first + second == alone and first != second


def _evaluate_unequally(rank: int, port: int, n: int) -> list[list[float]]:
    """Rank r normalises r + 1 times; an exchange would wait for the others until the timeout."""
    join(rank, port, n, timeout=5.0)
    layer = _layer()
    layer.running_mean.copy_(torch.arange(5.0))  # type: ignore[union-attr]
    layer.eval()
    rows = torch.full((1, 5), 2.0, dtype=torch.float64)
    found = []
    for _ in range(rank + 1):
        scale, shift = layer.scale_and_shift(rows, 10)
        found.append((rows * scale + shift)[0].tolist())
        assert layer(rows)[0].tolist() == pytest.approx(found[-1])
    torch.distributed.barrier()
    return found


@pytest.mark.parametrize("n", [2, 3])
def test_evaluation_exchanges_nothing(n: int) -> None:
    truth = _layer()
    truth.running_mean.copy_(torch.arange(5.0))  # type: ignore[union-attr]
    truth = truth.eval()(torch.full((1, 5), 2.0, dtype=torch.float64))[0].tolist()
    for rank, found in enumerate(run_ranks(_evaluate_unequally, n, free_port(), n)):
        assert found == [pytest.approx(truth)] * (rank + 1)


def _normalise_alone(rank: int, port: int) -> list[float]:
    join(rank, port, 2, timeout=5.0)
    values = torch.arange(3.0 + rank)[:, None]
    with single_process():
        assert (world_size(), process_rank()) == (1, 0)
        outputs = BatchNorm(1, eps=1e-9)(values)[:, 0].tolist() if rank else []
    assert (world_size(), process_rank()) == (2, rank)
    torch.distributed.barrier()
    return outputs


def test_alone_a_process_counts_as_the_only_one() -> None:
    _, found = run_ranks(_normalise_alone, 2, free_port())
    values = torch.arange(4.0)
    truth = (values - values.mean()) / values.std(correction=0)
    assert found == pytest.approx(truth.tolist())


def _few_values(rank: int, port: int, shares: tuple[int, ...], rows: bool) -> dict[str, np.ndarray]:
    join(rank, port, 2)
    layer = _layer()
    inputs = _values()[: sum(shares)].split(list(shares))[rank].clone().requires_grad_()
    if rows:
        scale, shift = layer.scale_and_shift(inputs, len(inputs))
        outputs = inputs * scale + shift
    else:
        outputs = layer(inputs)
    outputs.sin().sum().backward()
    assert inputs.grad is not None
    state = {name: value.numpy() for name, value in layer.state_dict().items()}
    return {"outputs": outputs.detach().numpy(), "inputs": inputs.grad.numpy(), **state}


@pytest.mark.parametrize(
    ("shares", "rows"), [((3, 0), False), ((0, 3), True), ((1, 1), True), ((1, 0), False)], ids=str
)
def test_processes_with_few_or_no_values_equal_one_process_with_all(
    shares: tuple[int, ...], rows: bool
) -> None:
    """A single value of all processes is normalised with the stored statistics, as by one process."""
    ranks = run_ranks(_few_values, 2, free_port(), shares, rows)
    truth, inputs = _layer(), _values()[: sum(shares)].clone().requires_grad_()
    outputs = truth(inputs)
    outputs.sin().sum().backward()
    assert inputs.grad is not None
    for name, expected in (("outputs", outputs.detach()), ("inputs", inputs.grad)):
        both = np.concatenate([rank[name] for rank in ranks])
        np.testing.assert_allclose(both, expected.numpy(), rtol=1e-9, atol=1e-10)
    for name, value in truth.state_dict().items():
        for rank in ranks:
            np.testing.assert_allclose(rank[name], value.numpy(), rtol=1e-12)
