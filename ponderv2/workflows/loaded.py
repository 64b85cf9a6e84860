"""A trained model in three calls: encode a point cloud, render a camera, extract a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from ponderv2.errors import CheckpointError
from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.meshes import Mesh
from ponderv2.geometry.rays import rays_through_pixels
from ponderv2.models.finetuned import SegmentationModel
from ponderv2.models.instances import InstancesModel
from ponderv2.models.pretext import PretextModel
from ponderv2.reconstruction.cleaning import cropped, near_cloud
from ponderv2.reconstruction.coloring import colored
from ponderv2.reconstruction.extract import Lattice, extract_surface
from ponderv2.reconstruction.fields import ModelField
from ponderv2.scenes.assemble import assemble
from ponderv2.scenes.augment_geometry import centre_shift_matrix
from ponderv2.scenes.config import PointDataConfig
from ponderv2.scenes.scene import PointCloud, Scene
from ponderv2.training.stored_models import StoredModel, load_stored
from ponderv2.workflows.encoding import BlockSettings, VoxelFeatures, chosen_condition, encode_voxels


@dataclass(frozen=True)
class View:
    """One rendered picture."""

    color: Float[Tensor, "row column 3"]
    """0..1."""
    depth: Float[Tensor, "row column"]
    """Metres along the optical axis."""
    normal: Float[Tensor, "row column 3"]
    """Unit length, in the frame of the cloud."""
    opacity: Float[Tensor, "row column"]
    """0 where nothing was met, 1 at a surface."""


@dataclass(frozen=True)
class EncodedCloud:
    """A point cloud as a model sees it."""

    cloud: PointCloud
    feature: Float[Tensor, "point channel"]
    """Of every point of the cloud."""
    field: ModelField | None
    """Signed distance and colour; None for models that do not render."""

    @torch.no_grad()
    def render(self, camera: Camera, chunk: int = 4096) -> View:
        """What a camera in the frame of the cloud sees. `chunk`: rays at once.

        Raises:
            CheckpointError: the model cannot render.
        """
        field = self._field()
        rows, columns = torch.arange(camera.height), torch.arange(camera.width)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        pixel = torch.stack([x, y], dim=-1).reshape(-1, 2).float()
        first = torch.zeros(len(pixel), dtype=torch.int64)
        through = rays_through_pixels(
            pixel, first, camera.intrinsics[None], camera.world_to_camera[None], first[:1]
        )
        seen = field.render_rays(through.rays.origins, through.rays.directions, chunk)
        size = (camera.height, camera.width)
        return View(
            color=seen.color.reshape(*size, 3),
            depth=(seen.distance / through.distance_per_depth).reshape(size),
            normal=seen.normal.reshape(*size, 3),
            opacity=seen.opacity.reshape(size),
        )

    @torch.no_grad()
    def mesh(self, resolution: int = 128, margin: float | None = 0.1) -> Mesh:
        """The coloured surface within `margin` metres of the cloud (None: everywhere).

        Args:
            resolution: Cells along the longest side of the model's volume.
            margin: Metres.

        Raises:
            CheckpointError: the model cannot render.
            SceneError: there is no surface.
        """
        field = self._field()
        cell = float((field.upper - field.lower).amax()) / resolution
        mesh = extract_surface(field.signed_distance, Lattice.covering(field.lower, field.upper, cell))
        if margin is not None:
            mesh = cropped(mesh, near_cloud(mesh, self.cloud, margin))
        return colored(mesh, field.color)

    def _field(self) -> ModelField:
        if self.field is None:
            raise CheckpointError("this model gives classes and cannot render", fix="load a pre-trained one")
        return self.field


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with the settings that its points are prepared by."""

    model: PretextModel | SegmentationModel | InstancesModel
    data: PointDataConfig

    def features(
        self, cloud: PointCloud, condition: str | None = None, blocks: BlockSettings = BlockSettings()
    ) -> Float[Tensor, "point channel"]:
        """Features of all points, without the volume that rendering needs. Metres, z up.

        Args:
            cloud: Of any size: what does not fit into memory is encoded in overlapping blocks.
            condition: Dataset that a prompted encoder is told; None: ScanNet, or the first that it knows.
            blocks: When and how the cloud is cut.

        Raises:
            CheckpointError: the encoder takes other features, or does not know the condition.
            ResourceError: not even small blocks fit into memory.
        """
        return self.voxel_features(cloud, condition, blocks).of_points()

    def voxel_features(
        self, cloud: PointCloud, condition: str | None = None, blocks: BlockSettings = BlockSettings()
    ) -> VoxelFeatures:
        """As `features`, one for every occupied voxel, with the way back to the points."""
        name = chosen_condition(self.model, condition)
        return encode_voxels(self.model, cloud, self.data, name, blocks)

    @torch.no_grad()
    def encode(self, cloud: PointCloud, condition: str | None = None) -> EncodedCloud:
        """Features of all points, and a volume that can be rendered. Metres, z up.

        `condition`: as for `features`.
        """
        if not isinstance(self.model, PretextModel):
            return EncodedCloud(cloud, self.features(cloud, condition), None)
        shift = centre_shift_matrix(cloud.coord, apply_z=True)
        scene = Scene("cloud", cloud).moved(shift)
        done = assemble(scene, self.data, chosen_condition(self.model, condition), "segment")
        encoded = self.model.build_volume(done.batch)
        to_cube = encoded.frames.to_cube[0].double() @ done.shift.double() @ shift.double()
        field = ModelField(self.model.renderer, encoded.volume, to_cube)
        return EncodedCloud(cloud, encoded.feature[done.voxels.inverse], field)


def load(path: Path) -> LoadedModel:
    """The model of a checkpoint or of a run folder, in evaluation mode on the CPU.

    Raises:
        CheckpointError: missing, damaged, unsafe or of another program.
    """
    stored = load_stored(Path(path))
    return LoadedModel(stored.model, _point_settings(stored))


def _point_settings(stored: StoredModel) -> PointDataConfig:
    """Voxels and features as in training; those of the published models where the file does not say."""
    known = PointDataConfig.model_fields
    data = stored.config.get("data", {})
    try:
        return PointDataConfig.model_validate({name: data[name] for name in known if name in data})
    except (ValidationError, TypeError) as error:
        raise CheckpointError(
            f"{stored.path} has point settings that this program does not know",
            fix="use the version of the program that wrote it",
        ) from error
