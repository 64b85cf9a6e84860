"""What the death of a data worker is told from."""

from __future__ import annotations

import pytest

from ponderv2.training.feed import worker_error

KILLED = "DataLoader worker (pid 4711) is killed by signal: Killed. "
GONE = "DataLoader worker (pid(s) 4711, 4712) exited unexpectedly"


@pytest.mark.parametrize(("text", "how"), [(KILLED, "was killed"), (GONE, "ended unexpectedly")])
@pytest.mark.parametrize("wrapping", ["none", "cause", "context"])
def test_a_dead_worker_is_named_wherever_its_signal_struck(text: str, how: str, wrapping: str) -> None:
    """A library that checks types, say, makes every error in its checks a TypeError of its own."""
    try:
        try:
            raise RuntimeError(text)
        except RuntimeError as error:
            if wrapping == "cause":
                raise TypeError("the return value has the wrong type") from error
            if wrapping == "context":
                raise TypeError("the return value has the wrong type")  # noqa: B904 (the case)
            raise
    except (RuntimeError, TypeError) as error:
        explained = worker_error(error, step=6, workers=1)
    assert explained
    assert "one of 1 data workers (process 4711)" in str(explained)
    assert how in str(explained) and "step 7" in str(explained)


def test_other_errors_are_left_alone() -> None:
    assert worker_error(RuntimeError("the sizes of the tensors differ"), 0, 2) is None
    assert worker_error(RuntimeError(), 0, 2) is None
