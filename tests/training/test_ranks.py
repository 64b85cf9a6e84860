"""Work of the first process that the others wait for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ponderv2.errors import SceneError
from ponderv2.training import ranks
from ponderv2.training.distributed import free_port
from ponderv2.training.ranks import by_first_process
from tests.training.processes import join, run_ranks


def _work(rank: int, port: int, path: Path, fails: bool) -> str:
    """Takes longer than an exchange of the group may."""
    join(rank, port, 2, timeout=2.0)
    ranks.WORD = 0.2

    def work() -> None:
        time.sleep(4.0)
        path.write_text(path.read_text() + str(rank))
        if fails:
            raise SceneError("nothing there", fix="look again")

    try:
        by_first_process(work)
    except SceneError as error:
        return error.message
    return path.read_text()


@pytest.mark.parametrize("fails", [False, True])
def test_the_first_process_works_and_the_others_wait_longer_than_an_exchange_may_take(
    tmp_path: Path, fails: bool
) -> None:
    path = tmp_path / "written"
    path.write_text("by ")
    found = run_ranks(_work, 2, free_port(), path, fails)
    assert found == (["nothing there"] * 2 if fails else ["by 0"] * 2)
    assert path.read_text() == "by 0"


def test_a_single_process_works_at_once() -> None:
    done: list[int] = []
    by_first_process(lambda: done.append(1))
    assert done == [1]
