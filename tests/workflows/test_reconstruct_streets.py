"""Meshes and points of a street whose surface is known in metres, in a volume whose cells are no cubes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.errors import OutputError, SceneError
from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.io.ply import read_ply
from ponderv2.lift.config import RangeFrameConfig
from ponderv2.lift.volume_frame import volume_frame
from ponderv2.reconstruction.scene_field import ModelField
from ponderv2.renderer.baked_field import BakedField
from ponderv2.renderer.renderer import RenderedRays, Renderer
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.workflows import reconstruct
from ponderv2.workflows.config import ReconstructConfig
from tests.workflows.heard import Heard

GROUND, CENTRE, RADIUS = -1.8, (6.0, 2.0, 0.0), 2.5
"""A street at z = GROUND and a ball that is sunk into it, metres."""
LOWER, UPPER, CELLS = (-20.0, -10.0, -4.0), (20.0, 10.0, 4.0), (80, 32, 20)
"""Cells of 0.5 x 0.625 x 0.4 m."""
WIDTH, HEIGHT = 48, 32
REACH = 8.0
"""The scan is known up to here, along x and y."""


def truth(points: np.ndarray) -> np.ndarray:
    """Signed distance, metres."""
    ball = np.linalg.norm(points - np.array(CENTRE), axis=-1) - RADIUS
    return np.minimum(points[..., 2] - GROUND, ball)


def color_at(points: np.ndarray) -> np.ndarray:
    """Of a place: 0..1."""
    return np.clip((points - LOWER) / (np.array(UPPER) - LOWER), 0, 1)


class Baked(BakedField):
    """Distances of a volume, linearly; the colour of a place."""

    def __init__(self, volume: FeatureVolume, to_volume: np.ndarray) -> None:
        object.__setattr__(self, "volume", volume)
        object.__setattr__(self, "from_volume", np.linalg.inv(to_volume))

    def signed_distance(self, points: Tensor, scene: Tensor) -> Tensor:  # pyright: ignore
        lower, upper = self.volume.lower[0], self.volume.upper[0]
        place = ((points - lower) / (upper - lower) * 2 - 1)[None, None, None].to(self.volume.values)
        values = self.volume.values
        return F.grid_sample(values, place, align_corners=False, padding_mode="border").flatten()

    def color(self, points: Tensor, directions: Tensor, scene: Tensor) -> Tensor:  # pyright: ignore
        metres = points.double().numpy() @ self.from_volume[:3, :3].T + self.from_volume[:3, 3]
        return torch.from_numpy(color_at(metres)).float()


class Truth(Renderer):
    """Walks rays in metres until they meet the surface."""

    def __init__(self, to_volume: np.ndarray, has_color: bool) -> None:
        nn.Module.__init__(self)
        self.to_volume = to_volume
        self.field: Any = SimpleNamespace(rgb_decoder=nn.Identity() if has_color else None)

    def bake(self, volume: FeatureVolume) -> BakedField:
        return Baked(volume, self.to_volume)

    def render(self, baked: BakedField, rays: RayBundle, chunk: int) -> RenderedRays:  # pyright: ignore
        assert chunk > 0
        back = np.linalg.inv(self.to_volume)
        start = rays.origins.double().numpy() @ back[:3, :3].T + back[:3, 3]
        direction = rays.directions.double().numpy() @ back[:3, :3].T
        per_metre = np.linalg.norm(direction, axis=1, keepdims=True)
        direction = direction / per_metre
        along = np.zeros((len(start), 1))
        for _ in range(200):
            along += truth(start + along * direction)[:, None].clip(-1, 1)
        end = start + along * direction
        hit = (np.abs(truth(end)) < 1e-6) & (along[:, 0] < 30)
        up = np.repeat(np.linalg.inv(back[:3, :3])[[2]], len(start), 0)  # of no importance: only its length
        return RenderedRays(
            torch.from_numpy(color_at(end)).float() * float(self.field.rgb_decoder is not None),
            torch.from_numpy(along[:, 0] / per_metre[:, 0]).float(),
            F.normalize(torch.from_numpy(up).float(), dim=1),
            torch.from_numpy(hit).float(),
        )


def field(stretch: bool = False, has_color: bool = True) -> ModelField:
    """Distances at the middles of the cells of a range, in its own unit."""
    config = RangeFrameConfig(lower=LOWER, upper=UPPER, cells=CELLS, stretch=stretch)
    frame = volume_frame(torch.zeros(0, 3).double(), torch.zeros(1, dtype=torch.long), config)
    axes = [
        low + (np.arange(n) + 0.5) * (high - low) / n
        for n, low, high in zip(CELLS, LOWER, UPPER, strict=True)
    ]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    values = torch.from_numpy(truth(np.stack([x, y, z], axis=-1)))[None, None] / 40.0
    to_volume = frame.world_to_volume[0].double()
    volume = FeatureVolume(values, frame.lower, frame.upper)
    return ModelField(Truth(to_volume.numpy(), has_color), volume, to_volume)


def camera(name: str, angle: float) -> DecodedFrame:
    """At the origin, horizontal: an image without depth, red in its upper half and blue in its lower one."""
    intrinsics = np.array([[30.0, 0, (WIDTH - 1) / 2], [0, 30.0, (HEIGHT - 1) / 2], [0, 0, 1.0]])
    forward, down = np.array([np.cos(angle), np.sin(angle), 0.0]), np.array([0.0, 0.0, -1.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([np.cross(down, forward), down, forward], axis=1)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2, :, 0], image[HEIGHT // 2 :, :, 2] = 255, 255
    return DecodedFrame(name, intrinsics, pose, image, None)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Points of the ground and of the ball near the origin, three cameras."""
    rng = np.random.default_rng(0)
    ground = rng.uniform(-REACH, REACH, (4000, 3))
    ground[:, 2] = GROUND
    turned = rng.normal(size=(2000, 3))
    ball = np.array(CENTRE) + RADIUS * turned / np.linalg.norm(turned, axis=1, keepdims=True)
    coord = np.concatenate([ground, ball])
    coord = coord[(truth(coord) > -1e-6) & (np.abs(coord[:, :2]) <= REACH).all(axis=1)].astype(np.float32)
    upward = np.repeat(np.array([[0, 0, 1]], np.float32), len(coord), 0)
    normal = np.where(coord[:, 2:] > GROUND, (coord - CENTRE) / RADIUS, upward).astype(np.float32)
    store = SceneStore.create(tmp_path_factory.mktemp("street"), DatasetInfo("drives", splits=("train",)))
    frames = [camera(str(number), angle) for number, angle in enumerate((0.0, 0.6, 3.0))]
    store.write("train", "street", SceneStream.of(PreparedCloud(coord, None, normal), frames))
    return store.root


class CheckpointOfARun(OpenCheckpoint):
    """Of a run that held no camera out; its field is made by the tests."""

    def __init__(self) -> None:
        pass

    @property
    def config(self) -> Mapping[str, Any]:
        return {"data": {}}


def run(
    street: Path, out: Path, field: ModelField, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[reconstruct.ReconstructResult, Heard]:
    heard = Heard()
    monkeypatch.setattr(reconstruct, "open_checkpoint", lambda path: CheckpointOfARun())
    monkeypatch.setattr(reconstruct, "open_field", lambda *_: field)
    config = ReconstructConfig.model_validate({"resolution": 80, **settings})
    result = reconstruct.run(
        config, scene="street", out=out, checkpoint=Path("run"), scenes=street, report=heard
    )
    return result, heard


@pytest.mark.parametrize("stretch", [False, True])
def test_a_mesh_lies_on_the_surface_in_metres_where_points_were_measured(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretch: bool
) -> None:
    made = field(stretch)
    assert made.cell == pytest.approx(0.625)
    result, _ = run(street, tmp_path / "street.ply", made, monkeypatch)
    mesh = trimesh.load_mesh(result.mesh, process=False)
    vertices = np.asarray(mesh.vertices)
    on_ground = np.abs(vertices[:, 2] - GROUND) < 1e-3
    away = np.linalg.norm(vertices - CENTRE, axis=1) > RADIUS + 1
    assert on_ground[away].all() and away.sum() > 300  # linear interpolation of a plane is exact
    assert np.abs(truth(vertices)).max() < 0.15  # where ball and ground meet, cells cut the edge
    top = (vertices[:, 2] > GROUND + 1) & (np.abs(truth(vertices)) < 0.06)
    assert top.sum() > 300 and vertices[:, 2].max() == pytest.approx(CENTRE[2] + RADIUS, abs=0.06)
    # No further than a cell from the scan, and all of what is well inside of it.
    assert np.abs(vertices[:, :2]).max() <= REACH + 0.5 + 0.625
    assert -vertices[:, 0].min() > REACH - 0.5
    assert (np.asarray(mesh.vertex_normals)[away, 2] > 0.99).all()
    colors = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255.0
    np.testing.assert_allclose(colors, color_at(vertices), atol=0.01)


@pytest.mark.parametrize("stretch", [False, True])
def test_rendered_points_lie_on_the_surface_and_have_its_colours(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretch: bool
) -> None:
    out = tmp_path / "street.ply"
    result, _ = run(street, out, field(stretch), monkeypatch, method="points", points={"stride": 2})
    file = read_ply(out)
    points, colors = file.columns("x", "y", "z"), file.columns("red", "green", "blue")
    assert points is not None and colors is not None and len(file.faces) == 0
    assert result.n_vertices == len(points) > 100 and result.n_faces == 0
    assert np.abs(truth(points)).max() < 2e-3
    assert (np.linalg.norm(points - CENTRE, axis=1) < RADIUS + 1e-2).sum() > 20
    np.testing.assert_allclose(colors / 255.0, color_at(points), atol=0.005)
    assert np.abs(points[:, :2]).max() <= REACH + 0.625

    everything, _ = run(
        street,
        out,
        field(stretch),
        monkeypatch,
        method="points",
        points={"stride": 2},
        crop_to_observed=False,
    )
    assert everything.n_vertices > result.n_vertices


def test_a_model_of_depth_alone_takes_the_colours_of_the_images(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "street.ply"
    run(street, out, field(has_color=False), monkeypatch, method="points")
    file = read_ply(out)
    points, colors = file.columns("x", "y", "z"), file.columns("red", "green", "blue")
    assert points is not None and colors is not None
    red = np.where(points[:, 2] > 0, 255, 0)  # the cameras are at z = 0 and look horizontally
    assert (np.abs(colors[:, 0] - red.astype(int)) < 60).mean() > 0.9  # JPEG blurs the border
    assert set(np.unique(colors[:, 0] > 128)) == {False, True}

    _, heard = run(street, out, field(has_color=False), monkeypatch)
    assert any("depth alone" in note for note in heard.noted)
    assert "red" not in read_ply(out).vertex


def test_settings_of_another_method_are_reported(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {"threshold": 0.1, "tsdf": {"stride": 2}}
    _, heard = run(street, tmp_path / "p.ply", field(), monkeypatch, method="points", **others)
    assert heard.warned == ["no effect with --method points: tsdf, threshold"]
    _, heard = run(street, tmp_path / "m.ply", field(), monkeypatch, threshold=0.1)
    assert not heard.warned


def test_what_cannot_be_is_said_in_one_message(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match=r"points as 'street\.obj'"):
        run(street, tmp_path / "street.obj", field(), monkeypatch, method="points")
    with pytest.raises(SceneError, match="no depth images"):
        run(street, tmp_path / "street.ply", field(), monkeypatch, method="tsdf")
    with pytest.raises(SceneError, match="no depth images") as caught:
        run(street, tmp_path / "street.ply", field(), monkeypatch, refine={"steps": 3})
    assert caught.value.fix is not None and "refine" in caught.value.fix
    assert not list(tmp_path.iterdir())
