"""Parts that get smaller when memory runs out."""

from __future__ import annotations

import pytest

from ponderv2.errors import ResourceError
from ponderv2.out_of_memory import in_chunks


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")]
)
def test_everything_is_done_once_in_halved_parts(error):
    sizes = []

    def work(rows: slice):
        if rows.stop - rows.start > 100:
            raise error
        sizes.append(rows.stop - rows.start)
        return list(range(rows.start, rows.stop))

    done = in_chunks(work, 1000, 512)
    assert [item for part in done for item in part] == list(range(1000))
    assert max(sizes) == 64


def test_memory_for_less_than_the_smallest_part_is_an_error_with_advice():
    def work(rows: slice):
        raise MemoryError

    with pytest.raises(ResourceError) as caught:
        in_chunks(work, 1000, 512)
    assert caught.value.fix


def test_other_errors_are_not_swallowed():
    def work(rows: slice):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_chunks(work, 1000, 512)


def test_no_items_are_one_empty_part():
    assert in_chunks(lambda rows: rows.stop - rows.start, 0, 8) == [0]
