"""What is annotated: models with a track and a state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ponderv2.synthetic.streets.models import Model
from ponderv2.synthetic.streets.motion import Track

MOVES = 0.2
"""Metres per second from which something counts as moving."""


@dataclass(frozen=True)
class Actor:
    """One object of the street with its history."""

    model: Model
    track: Track
    rider: bool = False
    parked: bool = False

    def attribute(self, time: float) -> str | None:
        """Name in the attribute table of nuScenes; None for what has none."""
        group = self.model.category.split(".")
        moves = self.track.speed(time) > MOVES
        if group[0] == "human":
            return None if group[-1] == "stroller" else f"pedestrian.{'moving' if moves else 'standing'}"
        if group[0] != "vehicle":
            return None
        if group[1] in ("bicycle", "motorcycle"):
            return f"cycle.{'with' if self.rider else 'without'}_rider"
        if self.parked:
            return "vehicle.parked"
        return f"vehicle.{'moving' if moves else 'stopped'}"

    def phase(self, time: float) -> int:
        """Which of the model's surfaces is right at that time."""
        n_phases = len(self.model.meshes)
        if n_phases == 1 or not self.track.moves:
            return 0
        way = float(np.interp(time, self.track.time, self.track.way))
        return int(way / self.model.stride * n_phases) % n_phases
