"""What torchrun or SLURM tell the processes that they start; else `start_together` starts them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """The processes that a launcher started for one run."""

    n_processes: int
    """On all machines together."""
    per_machine: int

    @property
    def n_machines(self) -> int:
        """Each with equally many processes."""
        return self.n_processes // self.per_machine


def launch() -> Launch | None:
    """The processes that this one was started with; None where it was started alone.

    An interactive job of SLURM counts as a shell: what is typed there is started once.
    """
    if (n_processes := _number("WORLD_SIZE")) is not None:
        return _launch(n_processes, _number("LOCAL_WORLD_SIZE"))
    n_processes = _number("SLURM_NTASKS")
    if n_processes is None or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    found = _launch(n_processes, _number("SLURM_NTASKS_PER_NODE") or _tasks_of_nodes())
    if found is not None:
        # Lightning Fabric refuses to do without it.
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(found.per_machine))
    return found


def under_launcher() -> bool:
    """Whether torchrun, SLURM or the like started this process as one of several."""
    return launch() is not None


def _launch(n_processes: int, per_machine: int | None) -> Launch | None:
    return Launch(n_processes, per_machine or n_processes) if n_processes > 1 else None


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None


def _tasks_of_nodes() -> int | None:
    """From the list of tasks per node, such as `4(x2)`; nodes all have the same number."""
    found = re.match(r"\d+", os.environ.get("SLURM_TASKS_PER_NODE", ""))
    return int(found[0]) if found else None
