"""Rooms of S3DIS: what is written byte by byte is read back; damage, copies, angles, archives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.s3dis.config import S3disConfig
from ponderv2.datasets.s3dis.reader import find
from ponderv2.datasets.s3dis.room import alignment, inner_viewpoints, read_room
from ponderv2.errors import SceneError
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.datasets import stanford_room as real
from tests.scenes.box_room import BLOCK, LOWER, UPPER

ARCHIVE = "Stanford3dDataset_v1.2"


def settings(path: Path, out: Path, workers: int = 1, **source) -> PrepareConfig:
    return PrepareConfig(source=S3disConfig(path=path, **source), out=out, workers=workers)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Areas 1 and 5 with all that is wrong in the published files."""
    root = tmp_path_factory.mktemp("data") / ARCHIVE
    stairs = real.Thing("stairs_1.txt", np.add(real.room_things()[1].rows[:40], (5, 0, 0, 0, 0, 0)))
    real.write_room(root / "Area_1", "office_1", [*real.room_things(0.15)[:2], stairs])
    real.write_room(root / "Area_1", "hallway_1", real.room_things(0.15))
    real.write_angles(root / "Area_1", {"office_1": 0, "hallway_1": 90})
    room = real.write_room(root / "Area_5", "office_36", real.room_things(0.15))
    for folder in (room / "Annotations", root / "Area_1" / "office_1"):
        (folder / ".DS_Store").write_bytes(b"\0\1")
        (folder / "._ceiling_1.txt").write_bytes(b"\0\1")
    wall = room / "Annotations" / "wall_3.txt"
    wall.with_name("wall_3 (1).txt").write_bytes(wall.read_bytes())
    ceiling = room / "Annotations" / "ceiling_1.txt"
    lines = ceiling.read_bytes().split(b"\n")
    lines[4] = lines[4].replace(b" ", b"\0", 3).replace(b"\0", b" ", 2)  # the third separator is a NUL
    lines[9] = lines[9][:-3] + b"\x10" + lines[9][-3:]
    lines[20] = b"1.0 2.0 3.0"
    ceiling.write_bytes(b"\n".join(lines))
    (room / "Annotations" / "clutter_9.txt").write_bytes(b"")
    real.write_angles(root / "Area_5", {"office_36": 180})
    copy_room = root / "Area_5" / "copyRoom_1"
    copy_room.mkdir()
    (copy_room / "copy_Room_1.txt").write_bytes(real.text_of(real.room_things(0.3)[0].rows))
    real.write_angles(root / "Area_5", {"office_36": 180, "copyRoom_1": 0})
    return root


def about_centre(coord: np.ndarray, degrees: int) -> np.ndarray:
    """Rooms are turned back by the angle: a quarter turn takes (x, y) to (y, -x)."""
    centre = (coord.min(axis=0) + coord.max(axis=0)) / 2
    x, y, z = (coord - centre).T
    turned = {0: (x, y, z), 90: (y, -x, z), 180: (-x, -y, z), 270: (-y, x, z)}[degrees]
    return np.stack(turned, axis=1) + centre


def test_a_prepared_archive_is_what_was_written(archive: Path, tmp_path: Path):
    result = prepare.run(settings(archive.parent, tmp_path / "out"))  # a folder above it
    assert {one.key: one.status for one in result.scenes} == {
        "Area_1/hallway_1": "done",
        "Area_1/office_1": "done",
        "Area_5/copyRoom_1": "done",
        "Area_5/office_36": "repaired",
    }
    store = open_folder(tmp_path / "out")
    assert store.info.name == "S3DIS" and store.info.splits == ("Area_1", "Area_5")
    assert store.info.class_names == real.CLASSES
    expected = real.arrays_of(real.room_things(0.15))
    cloud = store.read("hallway_1", "Area_1").cloud
    assert np.allclose(cloud.coord.numpy(), about_centre(expected["coord"], 90), atol=2e-6)
    for name in ("segment", "instance"):
        assert np.array_equal(cloud.labels[name].numpy(), expected[name])
    assert np.array_equal(cloud.color.numpy(), expected["color"])


def test_damage_is_put_right_and_told(archive: Path, tmp_path: Path):
    result = prepare.run(settings(archive, tmp_path / "out", areas=("Area_5",)))
    room = next(one for one in result.scenes if one.name == "office_36")
    told = "\n".join(room.why)
    assert "Area_5/office_36/Annotations/ceiling_1.txt line 5: '" in told and "\\x00" in told
    assert "ceiling_1.txt line 10: '" in told and "\\x10" in told
    assert "line 21: '1.0 2.0 3.0' dropped" in told
    assert "wall_3 (1).txt repeats 'wall_3.txt' and was left out" in told
    assert "clutter_9.txt is empty" in told and len(room.why) == 5
    stored = json.loads((tmp_path / "out" / "prepare_report.json").read_text())["scenes"]["Area_5/office_36"]
    assert tuple(stored["why"]) == room.why
    expected = real.arrays_of(real.room_things(0.15))
    kept = np.arange(len(expected["coord"])) != 20
    cloud = open_folder(tmp_path / "out").read("office_36", "Area_5").cloud
    everything = expected["coord"][kept]
    assert np.allclose(cloud.coord.numpy(), about_centre(everything, 180), atol=2e-6)
    assert np.array_equal(cloud.labels["instance"].numpy(), expected["instance"][kept])
    assert np.array_equal(cloud.color.numpy(), expected["color"][kept])


def test_an_unknown_name_counts_as_clutter(archive: Path):
    room = read_room(archive / "Area_1" / "office_1")
    assert room.segment[-40:].tolist() == [12] * 40 and room.instance[-1] == 2
    assert any("'stairs_1.txt' counts as clutter" in note for note in room.notes)


def test_a_copy_that_differs_is_kept(tmp_path: Path):
    folder = real.write_room(tmp_path / "Area_1", "office_1", real.room_things(0.3)) / "Annotations"
    other = real.Thing("wall_3 (1).txt", np.add(real.room_things(0.3)[0].rows, (0, 0, 1, 0, 0, 0)))
    (folder / other.file).write_bytes(real.text_of(other.rows))
    room = read_room(folder.parent)
    things = real.room_things(0.3)
    expected = real.arrays_of([*things[:-1], other, things[-1]])  # ' ' comes before '.'
    assert np.array_equal(room.coord, expected["coord"]) and not room.repairs
    assert np.array_equal(room.instance, expected["instance"])


def test_a_misnamed_list_without_annotations_has_points_but_no_classes(archive: Path):
    room = read_room(archive / "Area_5" / "copyRoom_1")
    assert np.array_equal(room.coord, real.room_things(0.3)[0].rows[:, :3])
    assert (room.segment == -1).all() and "copy_Room_1.txt" in room.notes[0]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_quarter_turns_match_their_closed_form(degrees: int):
    coord = np.random.default_rng(0).uniform(-3, 5, (50, 3))
    matrix = alignment(coord, float(degrees))
    assert np.allclose(coord @ matrix[:3, :3].T + matrix[:3, 3], about_centre(coord, degrees))
    assert np.isclose(np.linalg.det(matrix), 1.0)


def test_without_align_rooms_stay_as_they_are(archive: Path):
    (job,) = [one for one in find(S3disConfig(path=archive, align=False)).scenes if one.name == "hallway_1"]
    cloud = job.read().finish().cloud
    assert np.allclose(cloud.coord, real.arrays_of(real.room_things(0.15))["coord"], atol=2e-6)


def test_estimated_normals_point_into_the_room(archive: Path):
    (job,) = [one for one in find(S3disConfig(path=archive, align=False)).scenes if one.name == "hallway_1"]
    surface = job.read().finish()
    assert any(
        "normals: estimated from the points, turned towards the inside" in one for one in surface.notes
    )
    expected = real.arrays_of(real.room_things(0.15))
    inwards = (LOWER + UPPER) / 2 - expected["coord"]
    into_room = (surface.cloud.normal * inwards).sum(axis=1) > 0
    for label in (0, 1, 2):
        assert into_room[expected["segment"] == label].mean() > 0.97
    table_top = (expected["segment"] == 7) & (expected["coord"][:, 2] == BLOCK[1][2])
    inner = (np.abs(expected["coord"][:, :2] - (BLOCK[0] + BLOCK[1])[:2] / 2) < 0.25).all(axis=1)
    assert (surface.cloud.normal[table_top & inner] @ (0, 0, 1) > 0.95).all()


def test_places_inside_an_angled_room_are_in_the_open():
    rng = np.random.default_rng(1)
    floor = rng.uniform(0, 6, (6000, 2))
    floor = floor[~((floor > 2.5).all(axis=1))]  # an L
    points = np.concatenate([np.insert(floor, 2, 0.0, axis=1), np.insert(floor, 2, 3.0, axis=1)])
    places = inner_viewpoints(points)
    assert len(places) > 20 and not (places[:, :2] > 3.1).all(axis=1).any()
    assert (places[:, 2] > 0.5).all() and (places[:, 2] < 2.7).all()


def test_the_aligned_archive_is_recognised(tmp_path: Path):
    root = tmp_path / "Stanford3dDataset_v1.2_Aligned_Version"
    real.write_room(root / "Area_2", "office_1", real.room_things(0.3), long=False)
    plan = find(S3disConfig(path=root))
    assert any("aligned archive" in note for note in plan.notes)
    cloud = plan.scenes[0].read().finish().cloud
    assert np.allclose(cloud.coord, real.arrays_of(real.room_things(0.3))["coord"], atol=2e-6)
    with pytest.raises(SceneError, match="unknown angles") as caught:
        find(S3disConfig(path=root, noxyz=tmp_path))
    assert "Stanford3dDataset_v1.2 (without _Aligned_Version)" in str(caught.value.fix)
    real.write_room(tmp_path / ARCHIVE / "Area_1", "office_2", real.room_things(0.3))
    real.write_angles(tmp_path / ARCHIVE / "Area_1", {"office_2": 0})
    assert [job.name for job in find(S3disConfig(path=tmp_path)).scenes] == ["office_2"]


def test_missing_angles_are_asked_for(tmp_path: Path):
    for area in ("Area_1", "Area_2"):
        real.write_room(tmp_path / area, "office_1", real.room_things(0.3))
    real.write_angles(tmp_path / "Area_1", {"office_1": 90})
    with pytest.raises(SceneError, match=r"Area_2 lacks Area_2_alignmentAngle\.txt") as caught:
        find(S3disConfig(path=tmp_path))
    assert "source.align=false" in str(caught.value.fix)
    real.write_angles(tmp_path / "Area_2", {"office_9": 90})
    with pytest.raises(SceneError, match="has no angle of office_1"):
        find(S3disConfig(path=tmp_path))
    assert len(find(S3disConfig(path=tmp_path, align=False)).scenes) == 2


def test_folders_that_are_not_the_dataset_say_what_is_expected(tmp_path: Path, archive: Path):
    with pytest.raises(SceneError, match="no folder"):
        find(S3disConfig(path=tmp_path / "nothing"))
    with pytest.raises(SceneError, match="is not S3DIS") as caught:
        find(S3disConfig(path=tmp_path))
    assert "Area_1/office_1/Annotations" in str(caught.value.fix)
    with pytest.raises(SceneError, match="is one area") as caught:
        find(S3disConfig(path=archive / "Area_1"))
    assert str(archive) in str(caught.value.fix)


def test_other_input_or_settings_prepare_a_room_anew(archive: Path):
    def prints(**source) -> set[str]:
        return {
            job.fingerprint() for job in find(S3disConfig(path=archive, areas=("Area_1",), **source)).scenes
        }

    assert prints() == prints() and not prints() & prints(align=False)
    file = archive / "Area_1" / "office_1" / "Annotations" / "floor_1.txt"
    before, text = prints(), file.read_bytes()
    file.write_bytes(text + b"0 0 0 1 2 3\n")
    assert len(before & prints()) == 1
    file.write_bytes(text)
