"""Structured3D from zip archives: the recorded room, never its mirror; damage is survived."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from ponderv2.checks.check import CheckResult
from ponderv2.checks.config import CheckConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.structured3d.classes import CLASS_NAMES, CLASS_OF_NYU40, COLORS, NYU40_IDS
from ponderv2.datasets.structured3d.config import Structured3dConfig
from ponderv2.datasets.structured3d.reader import Structured3dRoom, find, split_of
from ponderv2.errors import SceneError
from ponderv2.io.archives import ArchiveMember, archive_members
from ponderv2.scenes.scene import Scene
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.datasets import structured3d_room as truth

ROOM = "scene_00007/room_123"
BASE = "Structured3D/scene_00007/2D_rendering/123"


def run(root: Path, out: Path, **settings) -> prepare.PrepareResult:
    source = Structured3dConfig(path=root, **settings)
    return prepare.run(PrepareConfig(source=source, out=out, workers=1, check=CheckConfig(n_pixels=400)))


def prepared(root: Path, out: Path, **settings) -> tuple[Scene, prepare.SceneOutcome]:
    result = run(root, out, **settings)
    return open_folder(out).read(ROOM), result.scenes[0]


def checked(outcome: prepare.SceneOutcome) -> CheckResult:
    assert outcome.check is not None
    return outcome.check


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return truth.room_files()


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> Path:
    root = tmp_path_factory.mktemp("structured3d")
    truth.write_zips(root, files)
    return root


def points(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cloud = scene.cloud
    return cloud.coord.numpy().astype(float), cloud.normal.numpy(), cloud.labels["segment"].numpy()


def test_the_classes_are_25_with_names_colours_and_ids():
    assert len(CLASS_NAMES) == len(COLORS) == len(NYU40_IDS) == 25
    assert len(set(COLORS)) == 25 and list(NYU40_IDS) == sorted(NYU40_IDS)
    named = {CLASS_NAMES[number]: nyu40 for nyu40, number in CLASS_OF_NYU40.items()}
    assert (named["picture"], named["ceiling"], named["otherprop"]) == (11, 22, 40)


def test_scenes_are_split_by_number():
    numbers = {"scene_02999": "train", "scene_03000": "val", "scene_03249": "val", "scene_03250": "test"}
    assert {scene: split_of(scene) for scene in numbers} == numbers


@pytest.mark.parametrize("source", ["panorama", "perspective", "both"])
def test_points_lie_on_the_room_with_its_normals_and_labels(tmp_path: Path, archives: Path, source: str):
    scene, outcome = prepared(archives, tmp_path, points=source)
    assert outcome.status == "done" and (outcome.split, outcome.name) == ("train", ROOM)
    coord, normal, segment = points(scene)
    distance = truth.distance_to_room(coord)
    assert np.percentile(distance, 99.5) < 0.002
    assert np.abs(np.linalg.norm(normal, axis=1) - 1).max() < 1e-4
    step = coord + 0.05 * normal
    inside = ((step > truth.LOWER) & (step < truth.UPPER)).all(axis=1)
    in_table = ((step > truth.TABLE[0]) & (step < truth.TABLE[1])).all(axis=1)
    assert (inside & ~in_table).mean() > 0.99
    floor = np.abs(coord[:, 2]) < 0.002
    clear = floor & ((coord < truth.TABLE[0] - 0.1) | (coord > truth.TABLE[1] + 0.1))[:, :2].any(axis=1)
    assert np.median(normal[clear] @ np.array([0.0, 0, 1])) > 0.999
    assert (segment[clear] == CLASS_OF_NYU40[truth.FLOOR]).mean() > 0.99
    top = (np.abs(coord[:, 2] - truth.TABLE[1][2]) < 0.002) & (coord[:, 0] > truth.TABLE[0][0] + 0.05)
    top &= (coord < truth.TABLE[1] + 1e-3).all(axis=1) & (coord[:, 1] > truth.TABLE[0][1])
    assert top.sum() > 20 and (segment[top] == CLASS_OF_NYU40[truth.TABLE_ID]).all()
    red = scene.cloud.color.numpy()[segment == CLASS_OF_NYU40[truth.DOOR]].mean(axis=0)
    assert red[0] > 180 and red[1] < 80


def side_of_the_door(coord: np.ndarray, segment: np.ndarray) -> float:
    """Metres to the right, for somebody who stands in the room and faces the middle of door and picture."""
    door = coord[segment == CLASS_OF_NYU40[truth.DOOR]].mean(axis=0)
    picture = coord[segment == CLASS_OF_NYU40[truth.PICTURE]].mean(axis=0)
    forward = (door + picture) / 2 - coord[segment == CLASS_OF_NYU40[truth.FLOOR]].mean(axis=0)
    right = np.cross(forward * (1, 1, 0), (0, 0, 1.0))
    return float((door - picture) @ (right / np.linalg.norm(right)))


@pytest.mark.parametrize("source", ["panorama", "perspective"])
def test_the_door_is_on_the_right_and_as_published_on_the_left(tmp_path: Path, archives: Path, source: str):
    own, _ = prepared(archives, tmp_path / "own", points=source)
    published, outcome = prepared(archives, tmp_path / "mirror", points=source, mirrored_as_published=True)
    assert side_of_the_door(*points(own)[::2]) > 1.5
    assert side_of_the_door(*points(published)[::2]) < -1.5
    assert any("mirror image" in note for note in outcome.notes)


def test_views_are_frames_whose_pixels_land_on_the_room(tmp_path: Path, archives: Path):
    scene, outcome = prepared(archives, tmp_path)
    assert [frame.id for frame in scene.frames] == ["0", "1", "2", "3"]
    for frame, view in zip(scene.frames, truth.VIEWS, strict=True):
        taken = truth.exact_image(view)
        pose = np.linalg.inv(frame.camera.world_to_camera.numpy().astype(float))
        right, up, forward = view.basis()
        assert np.allclose(pose[:3, :3], np.stack([right, -up, forward], axis=1), atol=1e-5)
        assert np.allclose(pose[:3, 3], view.eye, atol=1e-5) and np.linalg.det(pose[:3, :3]) > 0
        assert (frame.read_depth().numpy() * 1000 - taken["depth.png"]).max() < 0.01
        assert np.abs(frame.read_color().numpy().astype(int) - taken["rgb_rawlight.png"]).mean() < 4
        semantic = np.vectorize(lambda one: CLASS_OF_NYU40.get(one, -1))(taken["semantic.png"])
        assert (frame.read_semantic().numpy() == semantic).all()
        row, column = np.mgrid[0 : truth.HEIGHT, 0 : truth.WIDTH]
        pixel = np.stack([column, row, np.ones_like(row)], axis=-1).reshape(-1, 3)
        ray = pixel @ np.linalg.inv(frame.camera.intrinsics.numpy().astype(float)).T
        landed = (ray * frame.read_depth().numpy().reshape(-1, 1)) @ pose[:3, :3].T + pose[:3, 3]
        assert truth.distance_to_room(landed).max() < 0.002
    found = checked(outcome)
    assert not found.suspect and found.inlier_share is not None and found.inlier_share > 0.9
    assert found.cloud_inlier_share is not None and found.cloud_inlier_share > 0.9


def test_the_published_fusion_is_reproduced(tmp_path: Path, archives: Path):
    """Against the rule of the published fusion, followed pixel by pixel with its own axes."""
    scene, outcome = prepared(archives, tmp_path, points="panorama", mirrored_as_published=True, voxel=1e-4)
    taken = truth.panorama()
    width, height = truth.PANORAMA
    expected = []
    for v in range(0, height, 9):
        for u in range(0, width, 7):
            a, b = 2 * np.pi * u / width - np.pi, np.pi / 2 - np.pi * v / height
            d = taken["depth.png"][v, u] / 1000
            local = np.array([d * np.cos(a) * np.cos(b), d * np.sin(b), d * np.sin(a) * np.cos(b)])
            fused = local + truth.CENTRE[[1, 2, 0]]
            expected.append(fused[[0, 2, 1]])
    from scipy.spatial import KDTree

    nearest = np.asarray(KDTree(points(scene)[0]).query(np.array(expected))[0])
    assert np.median(nearest) < 1e-5 and (nearest < 1e-4).mean() > 0.8
    for frame, view in zip(scene.frames, truth.VIEWS, strict=True):
        pose = np.linalg.inv(frame.camera.world_to_camera.numpy().astype(float))
        _, up, forward = view.basis()
        basis = np.stack([forward, up, np.cross(forward, up)], axis=1)[[1, 2, 0]]
        from_opencv = np.array([[0.0, 0, 1], [0, -1, 0], [1, 0, 0]])
        assert np.allclose(pose[:3, :3], (basis @ from_opencv)[[0, 2, 1]], atol=1e-5)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(-1, abs=1e-4)
        assert np.allclose(frame.camera.intrinsics[0, 2], truth.WIDTH / 2)
    found = checked(outcome)
    assert not found.suspect and found.mirrored
    assert found.inlier_share is not None and found.inlier_share > 0.9


def test_a_folder_of_extracted_files_gives_the_same_bytes(tmp_path: Path, archives: Path, files):
    for name, data in files.items():
        path = tmp_path / "extracted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    run(archives, tmp_path / "a")
    run(tmp_path / "extracted", tmp_path / "b")
    for name in ("coord.npy", "segment.npy", "frames/color/0.jpg", "frames/cameras.npz"):
        assert (tmp_path / "a/train" / ROOM / name).read_bytes() == (
            tmp_path / "b/train" / ROOM / name
        ).read_bytes()


def test_one_point_per_cube_and_settings_of_frames(tmp_path: Path, archives: Path):
    scene, _ = prepared(archives, tmp_path, voxel=0.05, max_image_size=80, holdout=2, filter_frame_depth=True)
    cells = np.floor(points(scene)[0] / 0.05)
    assert len(np.unique(cells, axis=0)) > 0.999 * len(cells)  # a float32 may fall to the other side
    assert [frame.held_out for frame in scene.frames] == [False, True, False, True]
    frame, view = scene.frames[0], truth.VIEWS[0]
    exact = truth.exact_image(view, (80, 45))["depth.png"] / 1000
    depth = frame.read_depth().numpy()
    assert depth.shape == (45, 80) and np.median(np.abs(depth - exact)[depth > 0]) < 0.02
    assert np.allclose(frame.camera.intrinsics[0, 2], 39.5)


# Damage -----------------------------------------------------------------------------------------------------


def rewritten(root: Path, files: dict[str, bytes]) -> Path:
    truth.write_zips(root, files)
    return root


def test_views_with_missing_or_broken_files_are_left_out_by_name(tmp_path: Path, files: dict[str, bytes]):
    views = f"{BASE}/perspective/full"
    changed = {name: data for name, data in files.items() if name != f"{views}/0/depth.png"}
    changed[f"{views}/1/semantic.png"] = files[f"{views}/1/semantic.png"][:60]
    changed[f"{views}/2/camera_pose.txt"] = b"0 0 0 1 0 0 0 0 1 0.7 nan 1"
    scene, outcome = prepared(rewritten(tmp_path / "zips", changed), tmp_path / "out")
    assert outcome.status == "repaired" and [frame.id for frame in scene.frames] == ["3"]
    for text in ("0 has no depth.png", "1/semantic.png is not a readable", "2/camera_pose.txt"):
        (why,) = [one for one in outcome.why if text in one]
        assert "Structured3D_perspective_full_00.zip" in why


def test_a_field_of_view_in_degrees_is_refused_and_a_wrong_one_is_suspected(tmp_path: Path, files):
    views = f"{BASE}/perspective/full"
    degrees = dict(files)
    degrees[f"{views}/0/camera_pose.txt"] = truth.pose_line(truth.VIEWS[0], (40.1, 25.3))
    _, outcome = prepared(rewritten(tmp_path / "degrees", degrees), tmp_path / "a")
    assert any("not in 0..pi/2" in why and "view 0" in why for why in outcome.why)
    whole = dict(files)
    for number, view in enumerate(truth.VIEWS):
        angles = tuple(float(np.arctan(np.tan(one) / 1.65)) for one in truth.HALF_ANGLE)
        whole[f"{views}/{number}/camera_pose.txt"] = truth.pose_line(view, angles)
    _, outcome = prepared(rewritten(tmp_path / "wrong", whole), tmp_path / "b", points="panorama")
    found = checked(outcome)
    assert found.suspect and "focal length by about 0.6" in found.likely_cause


def test_without_its_panorama_a_room_is_made_from_its_views(tmp_path: Path, files: dict[str, bytes]):
    changed = {name: data for name, data in files.items() if not name.endswith("panorama/full/depth.png")}
    root = rewritten(tmp_path / "zips", changed)
    _, outcome = prepared(root, tmp_path / "both")
    assert outcome.status == "repaired" and "panorama was left out" in outcome.why[0]
    with pytest.raises(SceneError, match=r"panorama_00\.zip: .*no depth\.png"):
        run(root, tmp_path / "alone", points="panorama")


def test_a_truncated_archive_is_named_and_the_others_are_read(tmp_path: Path, files: dict[str, bytes]):
    _, views = truth.write_zips(tmp_path / "zips", files)
    views.write_bytes(views.read_bytes()[:-200])
    result = run(tmp_path / "zips", tmp_path / "out")
    assert result.n_prepared == 1 and result.scenes[0].n_frames == 0
    assert any("perspective_full_00.zip is not a whole zip archive" in one for one in result.warnings)
    (tmp_path / "zips" / "Structured3D_panorama_00.zip").unlink()
    with pytest.raises(SceneError, match="not a whole zip archive"):
        run(tmp_path / "zips", tmp_path / "none")


def test_members_that_are_not_what_the_directory_says_are_named(tmp_path: Path, files: dict[str, bytes]):
    _, path = truth.write_zips(tmp_path, files)
    data = bytearray(path.read_bytes())
    at = data.find(f"{BASE}/perspective/full/1/rgb_rawlight.png".encode()) + 120
    data[at : at + 40] = bytes(40)
    path.write_bytes(bytes(data))
    _, outcome = prepared(tmp_path, tmp_path / "out")
    assert outcome.n_frames == 3 and "1/rgb_rawlight.png is damaged" in outcome.why[0]


def forged(tmp_path: Path, name: str, change) -> ArchiveMember:
    """The only member of an archive whose directory entry was changed."""
    data = bytearray(truth.zip_bytes({name: b"x" * 5000}))
    entry = data.rfind(b"PK\x01\x02")
    change(data, entry)
    path = tmp_path / "Structured3D_panorama_00.zip"
    path.write_bytes(bytes(data))
    return next(member for _, member in archive_members(path))


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (24, "<I", 2**31, "claims to have"),
        (24, "<I", 60 * 2**20, "impossible size"),
        (24, "<I", 100, "more than the announced 100"),
        (8, "<H", 1, "encrypted"),
        (10, "<H", 12, "unknown way"),
        (20, "<I", 10**6, "overlaps"),
        (20, "<I", 3, "impossible size"),
        (16, "<I", 5, "checksum"),
        (42, "<I", 7, "no member where"),
    ],
)
def test_a_forged_directory_is_refused(tmp_path: Path, offset: int, form: str, value: int, message: str):
    member = forged(
        tmp_path, "a/b.png", lambda data, entry: struct.pack_into(form, data, entry + offset, value)
    )
    with pytest.raises(SceneError, match=message) as caught:
        member.read()
    assert "Structured3D_panorama_00.zip" in caught.value.message


def test_names_that_leave_the_archive_are_refused(tmp_path: Path):
    path = tmp_path / "x.zip"
    path.write_bytes(truth.zip_bytes({"../../scene_00000/2D_rendering/1/panorama/full/depth.png": b"x"}))
    ((_, member),) = archive_members(path)
    with pytest.raises(SceneError, match="leaves the archive"):
        member.read()


def test_a_deflate_bomb_is_not_unpacked(tmp_path: Path):
    bomb = zlib.compress(bytes(10**7), 9)
    member = forged(tmp_path, "a.txt", lambda data, entry: None)
    assert member.read() == b"x" * 5000 and len(bomb) < 10**5
    large = tmp_path / "large.zip"
    large.write_bytes(truth.zip_bytes({"a.txt": bytes(10**7)}))
    with pytest.raises(SceneError, match="claims to have 10000000 bytes"):
        next(archive_members(large))[1].read()


def test_other_rooms_survive_a_broken_one_and_splits_are_folders(tmp_path: Path, files: dict[str, bytes]):
    second = {name.replace("scene_00007", "scene_03001"): data for name, data in files.items()}
    broken = {name.replace("123", "124"): b"" for name in files}
    rewritten(tmp_path / "zips", {**files, **second, **broken})
    result = run(tmp_path / "zips", tmp_path / "out")
    status = {one.key: one.status for one in result.scenes}
    assert status == {
        "train/scene_00007/room_123": "done",
        "train/scene_00007/room_124": "failed",
        "val/scene_03001/room_123": "done",
    }
    store = open_folder(tmp_path / "out")
    assert store.info.name == "Structured3D" and store.info.class_names == CLASS_NAMES
    assert store.names("val") == ("scene_03001/room_123",)
    again = run(tmp_path / "zips", tmp_path / "out", scenes=("scene_00*",))
    assert again.n_skipped == 1 and again.n_failed == 1


def test_the_estimate_of_the_space_is_of_the_right_size(tmp_path: Path, archives: Path):
    (job,) = find(Structured3dConfig(path=archives)).scenes
    assert isinstance(job, Structured3dRoom)
    without = find(Structured3dConfig(path=archives, points="panorama")).scenes[0]
    assert job.estimated_bytes() > without.estimated_bytes() > 10**6  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", ["nothing", "other"])
def test_a_folder_without_rooms_says_what_is_expected(tmp_path: Path, content: str):
    if content == "other":
        (tmp_path / "Structured3D_bbox.zip").write_bytes(b"")
    with pytest.raises(SceneError, match="no rooms of Structured3D") as caught:
        find(Structured3dConfig(path=tmp_path))
    assert "Structured3D_panorama_NN.zip" in (caught.value.fix or "")
    with pytest.raises(SceneError, match="no file or folder"):
        find(Structured3dConfig(path=tmp_path / "nowhere"))
