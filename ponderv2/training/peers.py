"""The processes of a run: who they are, and which of them is to blame when an exchange fails."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ponderv2.errors import ResourceError

PATIENCE = 5.0
"""Seconds in which a process that is dying becomes visibly dead."""


@dataclass(frozen=True)
class Peer:
    """One process of the run."""

    rank: int
    pid: int
    host: str

    @staticmethod
    def here(rank: int) -> Peer:
        """This process."""
        return Peer(rank, os.getpid(), socket.gethostname())


@dataclass(frozen=True)
class Peers:
    """All processes of the run, known to each of them."""

    all: tuple[Peer, ...]

    def explained(self, error: BaseException, timeout: float) -> ResourceError | None:
        """What a failed exchange means; None where the error is of another kind."""
        if len(self.all) < 2 or not _is_of_an_exchange(error):
            return None
        others = [peer for peer in self.all if peer.pid != os.getpid()]
        late = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        end = time.monotonic() + PATIENCE
        while not (found := [(peer, state) for peer in others if (state := _trouble(peer))]):
            if late or time.monotonic() > end:
                break
            time.sleep(0.1)
        fix = "run the same command with --resume"
        if found:
            peer, state = found[0]
            name = f"training process {peer.rank} of {len(self.all)} (pid {peer.pid} on {peer.host})"
            waited = f" and did not answer within {timeout:g} s" if late else ""
            return ResourceError(f"{name} {state}{waited}", fix=fix)
        if late:
            named = ", ".join(f"{peer.rank} (pid {peer.pid} on {peer.host})" for peer in others[:8])
            return ResourceError(
                f"no answer within {timeout:g} s from one of the training processes {named}",
                fix=f"{fix}; --set training.timeout=SECONDS waits longer",
            )
        reason = str(error).splitlines()[0][:200]
        return ResourceError(f"one of {len(self.all)} training processes ended: {reason}", fix=fix)


def _is_of_an_exchange(error: BaseException) -> bool:
    """NCCL, the store and the network have types of their own; gloo raises RuntimeError that names it."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error).lower()


def _trouble(peer: Peer) -> str | None:
    """What is wrong with a process of this machine; None where it runs or cannot be seen."""
    if peer.host != socket.gethostname() or not Path("/proc/self").exists():
        return None
    try:
        state = Path(f"/proc/{peer.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return "has ended"
    return {"T": "is stopped", "t": "is stopped", "Z": "has ended", "X": "has ended"}.get(state)
