"""Colour per vertex: what a camera would see that looks straight at the surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.geometry.meshes import Mesh, vertex_normals

ColorAt = Callable[[Float[Tensor, "point 3"], Float[Tensor, "point 3"]], Float[Tensor, "point 3"]]
"""Points and viewing directions (unit length) in scene units -> colour 0..1."""


@torch.no_grad()
def colored(mesh: Mesh, color_at: ColorAt, chunk: int = 65536) -> Mesh:
    """The mesh with the colours of its vertices, seen along their inward normals."""
    normals = vertex_normals(mesh)
    parts = [
        color_at(mesh.vertices[start : start + chunk], -normals[start : start + chunk])
        for start in range(0, len(mesh.vertices), chunk)
    ]
    colors = torch.cat(parts).clamp(0.0, 1.0) if parts else torch.zeros(0, 3)
    return replace(mesh, colors=colors)
