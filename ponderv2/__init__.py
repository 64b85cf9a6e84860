"""3D pre-training by neural rendering: encoder, renderer, heads, and the workflows around them.

    model = ponderv2.load()                                      # the encoder that ships, or a checkpoint
    feature = model.features(ponderv2.read_cloud(Path("x.ply"))) # [point, channel]

    encoded = model.encode(cloud)                                # cloud: ponderv2.PointCloud
    encoded.feature                                              # [point, channel]
    images = encoded.render(camera)                              # camera: ponderv2.Camera
    ponderv2.write_mesh(Path("room.ply"), encoded.mesh())

Names are loaded when they are first used: `import ponderv2` is quick and does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ponderv2.version import __version__

if TYPE_CHECKING:
    from ponderv2.data.scene_folder import open_folder
    from ponderv2.errors import PonderError
    from ponderv2.geometry.boxes import Boxes
    from ponderv2.geometry.cameras import Camera
    from ponderv2.geometry.meshes import Mesh
    from ponderv2.models.voxel_features import BlockSettings, VoxelFeatures
    from ponderv2.reconstruction.meshes import read_mesh, write_mesh
    from ponderv2.reconstruction.scene_field import RenderedImages
    from ponderv2.scenes.point_cloud_files import read_cloud
    from ponderv2.scenes.scene import Frame, PointCloud, Scene, Sweep
    from ponderv2.store.store import SceneStore
    from ponderv2.tasks.checkpoints import load
    from ponderv2.tasks.loaded_model import EncodedCloud, LoadedModel

_HOME = {
    "BlockSettings": "models.voxel_features",
    "Boxes": "geometry.boxes",
    "Camera": "geometry.cameras",
    "EncodedCloud": "tasks.loaded_model",
    "Frame": "scenes.scene",
    "LoadedModel": "tasks.loaded_model",
    "Mesh": "geometry.meshes",
    "PointCloud": "scenes.scene",
    "PonderError": "errors",
    "Scene": "scenes.scene",
    "SceneStore": "store.store",
    "Sweep": "scenes.scene",
    "RenderedImages": "reconstruction.scene_field",
    "VoxelFeatures": "models.voxel_features",
    "open_folder": "data.scene_folder",
    "load": "tasks.checkpoints",
    "read_cloud": "scenes.point_cloud_files",
    "read_mesh": "reconstruction.meshes",
    "write_mesh": "reconstruction.meshes",
}

__all__ = [
    "BlockSettings",
    "Boxes",
    "Camera",
    "EncodedCloud",
    "Frame",
    "LoadedModel",
    "Mesh",
    "PointCloud",
    "PonderError",
    "RenderedImages",
    "Scene",
    "SceneStore",
    "Sweep",
    "VoxelFeatures",
    "__version__",
    "load",
    "open_folder",
    "read_cloud",
    "read_mesh",
    "write_mesh",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ponderv2' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ponderv2.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
