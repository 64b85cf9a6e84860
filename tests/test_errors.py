"""Which errors are those of memory: by type, and by words only where torch has no type."""

from __future__ import annotations

import errno

import pytest
import torch

from ponderv2.errors import SceneError, is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA: tried to allocate"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_what_allocators_raise_is_out_of_memory(error: Exception):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        SceneError("the room 'out of memory' cannot be read"),
        ValueError("'not enough memory' is no name of a class"),
        OSError(errno.ENOSPC, "out of memory.txt"),
        RuntimeError("shapes differ"),
        KeyError("can't allocate memory"),
    ],
)
def test_words_of_other_errors_mean_nothing(error: Exception):
    assert not is_out_of_memory(error)


def test_what_torch_itself_raises_for_too_much_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
