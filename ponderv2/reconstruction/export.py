"""Meshes as files: PLY, OBJ and GLB, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ponderv2.errors import OutputError, SceneError
from ponderv2.geometry.meshes import Mesh, vertex_normals
from ponderv2.io.files import write_bytes
from ponderv2.io.ply import encode_ply, read_ply
from ponderv2.io.point_columns import named_columns
from ponderv2.scenes.origin import Origin, middle_of

SUFFIXES = (".ply", ".obj", ".glb")


def check_mesh_path(path: Path) -> None:
    """Refuses a file that cannot be written, before hours are spent on its contents. Raises OutputError."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"cannot write a mesh as '{path.name}'", fix=f"--out {path.with_suffix('.ply')}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder, a file is needed", fix=f"--out {path / 'mesh.ply'}")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write into {folder}", fix="choose another place with --out")


def write_mesh(path: Path, mesh: Mesh, origin: Origin = (0.0, 0.0, 0.0)) -> None:
    """Vertices, faces, smooth normals and colours; the ending chooses the format.

    Coordinates stay as they are (metres, z up), in GLB too. `origin` is added in double precision to those of
    PLY and OBJ; GLB knows single precision alone and stays near zero. Raises OutputError.
    """
    check_mesh_path(path)
    data = _encoded(mesh, path.suffix.lower()[1:], np.array(origin))
    write_bytes(path, data)


def read_mesh(path: Path, origin: Origin = (0.0, 0.0, 0.0)) -> Mesh:
    """A triangle mesh from PLY, OBJ, GLB or whatever else trimesh reads. Raises SceneError.

    `origin` is subtracted, in double precision, from a mesh that lies nearer to it than to zero.
    """
    if path.suffix.lower() == ".ply":
        file = read_ply(path)
        columns = named_columns(file.vertex, path)
        colors = None if columns.color is None else columns.color.color / 255
        return _checked(path, _near(columns.coord, origin), file.faces, colors)
    import trimesh

    try:
        loaded: Any = trimesh.load_mesh(path, process=False)
        vertices, faces = np.asarray(loaded.vertices), np.asarray(loaded.faces)
    except (OSError, ValueError, LookupError, AttributeError, TypeError, NotImplementedError) as error:
        raise SceneError(f"{path} is not a readable mesh ({error})") from error
    return _checked(path, _near(vertices, origin), faces, None)


def _near(vertices: np.ndarray, origin: Origin) -> np.ndarray:
    """Near zero: meshes of prepared scenes are there already, others lie where the recording lay."""
    middle = middle_of(vertices)
    far = np.linalg.norm(middle - origin) < np.linalg.norm(middle)
    return vertices.astype(np.float64) - origin if far else vertices


def _checked(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray | None) -> Mesh:
    if len(faces) == 0:
        raise SceneError(f"{path} has no faces; a mesh is needed, not a point cloud")
    return Mesh(
        torch.from_numpy(vertices.astype(np.float32)),
        torch.from_numpy(faces.astype(np.int64)),
        None if colors is None else torch.from_numpy(colors),
    )


def _encoded(mesh: Mesh, kind: str, origin: np.ndarray) -> bytes:
    import trimesh

    colors = None
    if mesh.colors is not None:
        colors = (mesh.colors.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    vertices = mesh.vertices.numpy()
    if origin.any() and kind != "glb":
        vertices = vertices.astype(np.float64) + origin
        if kind == "ply":  # trimesh writes single precision
            return encode_ply(vertices, vertex_normals(mesh).numpy(), mesh.faces.numpy(), colors)
    made = trimesh.Trimesh(
        vertices=vertices,
        faces=mesh.faces.numpy(),
        vertex_normals=vertex_normals(mesh).numpy(),
        vertex_colors=colors,
        process=False,
    )
    options: dict[str, Any] = {"vertex_normal": True} if kind == "ply" else {"include_normals": True}
    encoded: Any = made.export(file_type=kind, **options)
    return encoded if isinstance(encoded, bytes) else str(encoded).encode()
