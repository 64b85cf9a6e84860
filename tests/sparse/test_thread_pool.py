"""Parts that run side by side: what they may rely on, and what stays as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from ponderv2.sparse.thread_pool import run_in_threads


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_part_has_one_core_and_later_threads_have_as_many_as_before(two_threads: None) -> None:
    seen: list[int] = []

    def part() -> None:
        seen.append(torch.get_num_threads())

    run_in_threads([part, part, part])
    assert seen == [1, 1, 1]
    assert torch.get_num_threads() == 2
    other = threading.Thread(target=part)
    other.start()
    other.join()
    assert seen[-1] == 2


def test_parts_of_parameters_record_no_gradients(two_threads: None) -> None:
    weight, found = torch.ones(2, requires_grad=True), torch.empty(2)

    def part(row: int) -> None:
        torch.mul(weight[row], 2.0, out=found[row])

    run_in_threads([lambda: part(0), lambda: part(1)])
    assert found.tolist() == [2.0, 2.0]


def test_an_error_is_raised_once_all_other_parts_are_done() -> None:
    done = threading.Event()

    def fails() -> None:
        raise MemoryError("no space")

    def lasts() -> None:
        threading.Event().wait(0.05)
        done.set()

    with pytest.raises(MemoryError, match="no space"):
        run_in_threads([fails, lasts])
    assert done.is_set()
