"""Images and meshes of 2D-3D-S against a room that is rendered in closed form."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.s3dis.config import S3disConfig
from ponderv2.datasets.s3dis.reader import S3disRoom, find
from ponderv2.datasets.s3dis.stanford2d3d import find_views, read_view_intrinsics
from ponderv2.errors import SceneError
from ponderv2.geometry.nearest_faces import nearest_normals, squared_distance
from ponderv2.io.obj import read_obj
from ponderv2.scenes.scene import Frame
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.datasets import stanford_room as real
from tests.scenes.box_room import BLOCK, LOWER, UPPER

MIDDLE = (LOWER + UPPER) / 2
SPACING = 0.08


def write_areas(root: Path, poses: list[np.ndarray] | None = None) -> tuple[Path, Path]:
    """office_1 of Area_1 and, scanned as part 5b, office_2 of Area_5; each is turned by a quarter."""
    archive, noxyz = root / "Stanford3dDataset_v1.2", root / "noXYZ"
    taken = real.poses() if poses is None else poses
    for area, room, part, to_part in (
        ("Area_1", "office_1", "area_1", None),
        ("Area_5", "office_2", "area_5b", np.linalg.inv(real.FROM_5B)),
    ):
        real.write_room(archive / area, room, real.room_things(SPACING))
        real.write_angles(archive / area, {room: 90})
        real.write_views(noxyz / part, room, taken, to_part)
        real.write_mesh(noxyz / part, to_part)
    real.write_views(noxyz / "area_5a", "office_9", taken[:1])
    return archive, noxyz


@pytest.fixture(scope="module")
def areas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_areas(tmp_path_factory.mktemp("areas"))


@pytest.fixture(scope="module")
def prepared(areas: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> prepare.PrepareResult:
    out = tmp_path_factory.mktemp("out") / "s3dis"
    source = S3disConfig(path=areas[0], noxyz=areas[1])
    return prepare.run(PrepareConfig(source=source, out=out, workers=1))


def quarter_turn() -> np.ndarray:
    """(x, y) to (y, -x) about the middle of the room."""
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    matrix[:3, 3] = MIDDLE - matrix[:3, :3] @ MIDDLE
    return matrix


def frames_of(prepared: prepare.PrepareResult, area: str, room: str) -> tuple[Frame, ...]:
    return open_folder(Path(prepared.out)).read(room, area).frames


@pytest.mark.parametrize(("area", "room"), [("Area_1", "office_1"), ("Area_5", "office_2")])
def test_images_are_those_of_a_camera_without_distortion(prepared, area: str, room: str):
    frames = frames_of(prepared, area, room)
    assert len(frames) == len(real.poses())
    for frame, pose in zip(frames, real.poses(), strict=True):
        found = np.linalg.inv(frame.camera.world_to_camera.numpy().astype(float))
        assert np.allclose(found, quarter_turn() @ pose, atol=1e-4)
        depth, color, label = real.seen(pose, real.straight_rays())
        read, semantic = frame.read_depth().numpy(), frame.read_semantic()
        kept = read > 0
        assert kept.mean() > 0.9
        error = np.abs(read - depth)[kept]
        assert np.median(error) < 0.012 and (error < 0.05).mean() > 0.97  # half a pixel of slanted walls
        assert (np.abs(frame.read_color().numpy().astype(int) - color)[kept] < 12).mean() > 0.95
        assert semantic is not None
        assert (semantic.numpy()[kept] == label[kept]).mean() > 0.97
        assert (semantic.numpy()[~kept] == -1).all()


def test_the_reprojection_check_agrees(prepared):
    for scene in prepared.scenes:
        assert scene.check is not None and not scene.check.suspect, scene.check
        assert scene.check.inlier_share is not None and scene.check.inlier_share > 0.85
        assert scene.check.cloud_inlier_share is not None and scene.check.cloud_inlier_share > 0.8
        assert any("6 images of 2D-3D-S" in note for note in scene.notes)


def with_poses(root: Path, poses: list[np.ndarray], **source) -> prepare.SceneOutcome:
    """office_1 of Area_1 prepared with other poses than its images were taken from."""
    archive, noxyz = write_areas(root)
    views = find_views(noxyz, "Area_1")["office_1"]
    for view, pose in zip(views, poses, strict=True):
        np.savetxt(view.pose, pose)
    config = S3disConfig(path=archive, noxyz=noxyz, areas=("Area_1",), normals="estimate", **source)
    return prepare.run(PrepareConfig(source=config, out=root / "out", workers=1)).scenes[0]


def test_inverse_poses_are_flagged_and_leave_no_images(tmp_path: Path):
    inverse = [np.linalg.inv(pose) for pose in real.poses()]
    scene = with_poses(tmp_path / "all", inverse, near=9.0, min_valid=0.0)
    assert scene.check is not None and scene.check.suspect
    scene = with_poses(tmp_path / "near", inverse)
    assert scene.n_frames < 6 and any("hardly show the room" in note for note in scene.notes)


def test_mirrored_poses_are_dropped_and_told(tmp_path: Path):
    scene = with_poses(tmp_path, [pose @ np.diag([-1.0, 1, 1, 1]) for pose in real.poses()])
    assert scene.n_frames == 0 and scene.status == "repaired"
    assert "6 unusable images were dropped" in scene.why[0] and "is mirrored" in scene.why[0]


def test_normals_are_those_of_the_faces(prepared):
    store = open_folder(Path(prepared.out))
    expected = real.arrays_of(real.room_things(SPACING))
    coord, label = expected["coord"], expected["segment"]
    for area, room in (("Area_1", "office_1"), ("Area_5", "office_2")):
        cloud = store.read(room, area).cloud
        normal = cloud.normal.numpy() @ quarter_turn()[:3, :3]  # back to the frame of the archive
        at_edge = (np.minimum(np.abs(coord - LOWER), np.abs(coord - UPPER)) < 0.01).sum(axis=1) > 1
        at_edge |= ((coord > BLOCK[0] - 0.01) & (coord < BLOCK[1] + 0.01)).all(axis=1)
        for axis, end, sign in ((2, LOWER, 1), (2, UPPER, -1), (0, LOWER, 1), (1, UPPER, -1)):
            on = (np.abs(coord[:, axis] - end[axis]) < 1e-9) & ~at_edge & (label != 7)
            assert on.sum() > 100
            assert np.allclose(normal[on, axis], sign, atol=1e-5)
        top = (label == 7) & (coord[:, 2] == BLOCK[1][2])
        inner = top & (np.abs(coord[:, :2] - (BLOCK[0] + BLOCK[1])[:2] / 2) < 0.4).all(axis=1)
        assert np.allclose(normal[inner] @ (0, 0, 1), 1, atol=1e-5)
    assert all(
        any("nearest face of the 2D-3D-S mesh" in note for note in one.notes) for one in prepared.scenes
    )


def test_nearest_faces_match_a_search_through_all(tmp_path: Path):
    real.write_mesh(tmp_path)
    triangles = read_obj(tmp_path / "3d" / "rgb.obj").astype(np.float64)
    assert triangles.shape == (24, 3, 3)
    points = np.random.default_rng(0).uniform(LOWER - 0.1, UPPER + 0.1, (400, 3))
    normal, distance = nearest_normals(points, triangles)
    everything = np.broadcast_to(triangles, (len(points), *triangles.shape))
    squared = squared_distance(points[:, None], np.ascontiguousarray(everything))
    assert np.allclose(distance, np.sqrt(squared.min(axis=1)), atol=2e-3)
    assert np.allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)


def test_distance_to_a_triangle_matches_a_dense_net():
    rng = np.random.default_rng(3)
    triangles, points = rng.normal(size=(40, 1, 3, 3)), rng.normal(size=(40, 1, 3)) * 2
    u, v = np.meshgrid(np.linspace(0, 1, 160), np.linspace(0, 1, 160))
    inside = u + v <= 1
    weight = np.stack([1 - u - v, u, v], -1)[inside]
    for triangle, point in zip(triangles, points, strict=True):
        net = np.linalg.norm(weight @ triangle[0] - point[0], axis=1).min()
        assert np.sqrt(squared_distance(point[None], triangle[None])[0, 0]) == pytest.approx(net, abs=0.03)


def test_polygons_negative_numbers_and_bare_faces_of_obj_files(tmp_path: Path):
    path = tmp_path / "a.obj"
    path.write_text(
        "# c\nv 0 0 0\nv 1 0 0 0.5 0.5 0.5\nv 1 1 0\n".replace(" 0.5 0.5 0.5", "")
        + "vn 0 0 1\nf 1//1 2//1 3//1\nv 0 1 0\nf -4 -3 -2 -1\n"
    )
    triangles = read_obj(path)
    assert triangles.tolist() == [
        [[0, 0, 0], [1, 0, 0], [1, 1, 0]],
        [[0, 0, 0], [1, 0, 0], [1, 1, 0]],
        [[0, 0, 0], [1, 1, 0], [0, 1, 0]],
    ]
    (tmp_path / "b.obj").write_text("v 0 0 0\nf 1 2 3\n")
    with pytest.raises(SceneError, match="faces without vertices"):
        read_obj(tmp_path / "b.obj")


def test_views_that_show_other_rooms_are_left_out(areas: tuple[Path, Path], tmp_path: Path):
    archive, noxyz = write_areas(tmp_path)
    for file in (archive / "Area_1" / "office_1" / "Annotations").glob("*.txt"):
        if not file.name.startswith("table"):
            file.unlink()
    job = find(S3disConfig(path=archive, noxyz=noxyz, near=0.03)).scenes[0]
    assert isinstance(job, S3disRoom)
    (noxyz / "area_1" / "raw" / f"{job.views[5].camera}_d1_2.png").write_bytes(b"no image")
    scene = job.read()
    kept = [frame.id for frame in scene.frames]
    surface = scene.finish()
    assert len(kept) < 5
    assert any("hardly show the room were left out" in note for note in surface.notes)
    assert any("1 unusable images were dropped" in one for one in surface.repairs)


def test_stride_number_and_size_of_images_are_limited(areas: tuple[Path, Path]):
    source = S3disConfig(
        path=areas[0], noxyz=areas[1], areas=("Area_1",), stride=2, max_frames=2, max_image_size=48
    )
    frames = list(find(source).scenes[0].read().frames)
    assert [frame.id.split("_", 1)[1] for frame in frames] == ["0_0", "1_1"]
    assert frames[0].depth.shape == (40, 48) and frames[0].color.shape == (40, 48, 3)
    depth, _, _ = real.seen(real.poses()[0], real.straight_rays(48, 40))
    kept = frames[0].depth > 0
    assert np.median(np.abs(frames[0].depth / 4000 - depth)[kept]) < 0.01


def test_cameras_of_rooms_are_found_in_both_parts_of_area_5(areas: tuple[Path, Path]):
    found = find_views(areas[1], "Area_5")
    assert {room: len(views) for room, views in found.items()} == {"office_9": 1, "office_2": 6}
    assert found["office_2"][0].folder.parent.name == "area_5b"


def test_width_and_height_are_read_in_either_order(tmp_path: Path):
    for sizes in ((1280, 1024), (1024, 1280)):
        path = tmp_path / "a_intrinsics_0.txt"
        path.write_text(" ".join(map(str, (*sizes, 1075, 1076, 629.5, 522.1, *real.LENS))))
        lens = read_view_intrinsics(path)
        assert lens.size == (1280, 1024) and lens.distortion == real.LENS
    path.write_text("1 2 3")
    with pytest.raises(SceneError, match="expected 1x11"):
        read_view_intrinsics(path)


def test_a_job_gives_the_same_room_in_another_process_and_again(areas: tuple[Path, Path], prepared):
    jobs = find(S3disConfig(path=areas[0], noxyz=areas[1])).scenes
    for job in pickle.loads(pickle.dumps(jobs)):
        scene = job.read()
        depths = {frame.id: frame.depth for frame in scene.frames}
        cloud = scene.finish().cloud
        stored = open_folder(Path(prepared.out)).read(job.name, job.split)
        assert np.array_equal(cloud.coord, stored.cloud.coord.numpy())
        assert np.array_equal(cloud.normal, stored.cloud.normal.numpy())
        for frame in stored.frames:
            assert np.allclose(depths[frame.id] / 4000, frame.read_depth().numpy(), atol=1e-6)


def test_normals_can_be_asked_for(areas: tuple[Path, Path], tmp_path: Path):
    (job, _) = find(S3disConfig(path=areas[0], noxyz=areas[1], normals="estimate")).scenes
    assert isinstance(job, S3disRoom) and job.meshes == ()
    notes = replace(job, views=job.views[:1]).read().finish().notes
    assert "normals: estimated from the points, turned towards the cameras" in notes
    with pytest.raises(SceneError, match=r"no mesh \(3d/rgb.obj\) of Area_1"):
        find(S3disConfig(path=areas[0], normals="mesh"))
    with pytest.raises(SceneError, match="has no folders area_1"):
        find(S3disConfig(path=areas[0], noxyz=tmp_path))


def test_another_lens_prepares_the_room_anew(tmp_path: Path):
    archive, noxyz = write_areas(tmp_path, real.poses()[:1])
    before = {job.name: job.fingerprint() for job in find(S3disConfig(path=archive, noxyz=noxyz)).scenes}
    (view,) = find_views(noxyz, "Area_1")["office_1"]
    view.intrinsics.write_text(view.intrinsics.read_text() + "\n")
    after = {job.name: job.fingerprint() for job in find(S3disConfig(path=archive, noxyz=noxyz)).scenes}
    assert after["office_1"] != before["office_1"] and after["office_2"] == before["office_2"]
