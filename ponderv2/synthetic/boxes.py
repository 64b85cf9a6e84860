"""Oriented boxes around the furniture of a room, exact: from the surfaces, not from measured points."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int

from ponderv2.geometry.boxes import Boxes
from ponderv2.synthetic.classes import BOX_CLASSES
from ponderv2.synthetic.room import Room


def furniture_boxes(room: Room, instance: Int[np.ndarray, " point"]) -> Boxes:
    """A box for each piece of furniture that has a point, tight around all of its surface, hidden or not.

    The heading is from the back to the front of the piece. `category` counts BOX_CLASSES, `instance` is that
    of the points. Measured points may lie outside by their noise.
    """
    measured = set(np.unique(instance).tolist())
    numbers = [
        number for number, thing in enumerate(room.things) if thing.name in BOX_CLASSES and number in measured
    ]
    things = [room.things[number] for number in numbers]
    bounds = np.array([thing.bounds() for thing in things]).reshape(-1, 2, 3)
    poses = np.array([thing.pose for thing in things]).reshape(-1, 4, 4)
    middle = np.einsum("nij,nj->ni", poses[:, :3, :3], bounds.mean(axis=1)) + poses[:, :3, 3]
    across, along, up = (bounds[:, 1] - bounds[:, 0]).T
    return Boxes(
        center=torch.from_numpy(middle).float(),
        size=torch.from_numpy(np.stack([along, across, up], axis=1)).float(),
        yaw=torch.from_numpy(np.arctan2(poses[:, 1, 1], poses[:, 0, 1])).float(),
        velocity=torch.zeros(len(things), 3),
        category=torch.tensor([BOX_CLASSES.index(thing.name) for thing in things], dtype=torch.long),
        instance=torch.tensor(numbers, dtype=torch.long),
    )
