"""Boxes that stand upright: targets of detection. Metres, radians, right-handed, z up.

Conversions to the conventions of data sets and other programs belong to their readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ponderv2.geometry.transforms import transform_points

CORNERS = ((1, 1), (1, -1), (-1, -1), (-1, 1))
"""Signs of length and width at the corners of a face: clockwise from above, from the front left one."""
EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
"""Of a box, by the numbers of its corners."""
ARRAYS = ("center", "size", "yaw", "velocity", "category", "instance")
"""That all boxes have."""
TOLERANCE = 1.0e-4
"""How far a map may be from a similarity that keeps the vertical, relative to its scale."""


@dataclass(frozen=True)
class Boxes:
    """Boxes around objects. All arrays have the same length and are sub-sampled together."""

    center: Float[Tensor, "box 3"]
    size: Float[Tensor, "box 3"]
    """Length along the heading, width, height."""
    yaw: Float[Tensor, " box"]
    """Direction of the heading about +z, counter-clockwise from +x."""
    velocity: Float[Tensor, "box 3"]
    """Metres per second; nan = unknown."""
    category: Int[Tensor, " box"]
    """Class; -1 = ignore."""
    instance: Int[Tensor, " box"]
    """Number of the object; -1 = unknown."""
    fields: Mapping[str, Shaped[Tensor, "box ..."]] = field(default_factory=dict)
    """What else the data set has of each box: attribute, n_lidar, visibility. Motions leave it alone."""

    def __len__(self) -> int:
        return len(self.center)

    @staticmethod
    def empty() -> Boxes:
        """No boxes."""
        numbers = torch.zeros(0, dtype=torch.long)
        return Boxes(
            torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 3), numbers, numbers
        )

    def take(self, index: Tensor) -> Boxes:
        """The chosen boxes (indices or a mask), with every field."""
        return Boxes(
            center=self.center[index],
            size=self.size[index],
            yaw=self.yaw[index],
            velocity=self.velocity[index],
            category=self.category[index],
            instance=self.instance[index],
            fields={name: values[index] for name, values in self.fields.items()},
        )

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Every array of the boxes by its name."""
        known = {name: getattr(self, name) for name in ARRAYS}
        return {**known, **self.fields}

    def contains(self, points: Float[Tensor, "point 3"]) -> Bool[Tensor, "box point"]:
        """Which points lie in which box, those on its faces included."""
        away = points[None].double() - self.center[:, None].double()
        cosine, sine = torch.cos(self.yaw.double())[:, None], torch.sin(self.yaw.double())[:, None]
        along = away[..., 0] * cosine + away[..., 1] * sine
        across = away[..., 1] * cosine - away[..., 0] * sine
        in_box = torch.stack([along, across, away[..., 2]], dim=-1)
        return (in_box.abs() <= self.size[:, None].double() / 2).all(dim=-1)

    def corners(self) -> Float[Tensor, "box 8 3"]:
        """The lower four, then the upper four, each clockwise from above; the first is at the front left."""
        flat = torch.tensor(CORNERS, dtype=self.center.dtype, device=self.center.device)
        signs = torch.cat([torch.cat([flat, flat.new_full((4, 1), z)], dim=1) for z in (-1.0, 1.0)])
        in_box = signs * self.size[:, None] / 2
        cosine, sine = torch.cos(self.yaw)[:, None], torch.sin(self.yaw)[:, None]
        x = in_box[..., 0] * cosine - in_box[..., 1] * sine
        y = in_box[..., 0] * sine + in_box[..., 1] * cosine
        return self.center[:, None] + torch.stack([x, y, in_box[..., 2]], dim=-1)

    def moved(self, transform: Float[Tensor, "4 4"]) -> Boxes:
        """The boxes after x' = transform x: a similarity or mirror image that keeps the vertical vertical.

        Raises:
            ValueError: the boxes would be tilted or deformed, which a yaw cannot express.
        """
        linear = transform[:3, :3].double().to(self.center.device)
        scale = linear[2, 2].abs()
        gram = linear.T @ linear
        deformed = (gram - scale.square() * torch.eye(3).to(gram)).abs().max() > TOLERANCE * scale.square()
        tilted = torch.cat([linear[:2, 2], linear[2, :2]]).abs().max() > TOLERANCE * scale
        if bool(deformed) or bool(tilted) or float(scale) == 0.0:
            raise ValueError("a box turns about z only: the transform tilts or deforms boxes")
        heading = torch.stack([torch.cos(self.yaw), torch.sin(self.yaw)], dim=1).double() @ linear[:2, :2].T
        return replace(
            self,
            center=transform_points(transform.to(linear), self.center.double()).to(self.center.dtype),
            size=(self.size.double() * scale).to(self.size.dtype),
            yaw=torch.atan2(heading[:, 1], heading[:, 0]).to(self.yaw.dtype),
            velocity=(self.velocity.double() @ linear.T).to(self.velocity.dtype),
        )
