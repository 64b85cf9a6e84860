"""Clusters of surroundings: statistics against loops, k-means against what it must find, labels of pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from ponderv2.data import cell_statistics as cell_statistics_module
from ponderv2.data.cell_statistics import cell_statistics
from ponderv2.data.clusters import ClusterFit, Clustering, ClusterPoints, digest_of, k_means
from ponderv2.data.config import ClustersConfig
from ponderv2.data.voxelise import voxelise
from ponderv2.errors import SceneError
from ponderv2.geometry.transforms import flip_matrix, rotation_matrix, scale_matrix
from ponderv2.scenes.scene import PointCloud, Scene

CONFIG = ClustersConfig(n_clusters=5, cell=0.25, sizes=(3, 5), sample_cells=2000)


def room(rng: torch.Generator, n: int = 3000, size: tuple[float, float, float] = (4.0, 3.0, 2.0)) -> Scene:
    """Points on the floor and two walls."""
    place = torch.rand(n, 3, generator=rng) * torch.tensor(size)
    axis = torch.randint(3, (n,), generator=rng)
    place[torch.arange(n), axis] = 0.0
    normal = torch.nn.functional.one_hot(axis, 3).float()
    color = torch.rand(n, 3, generator=rng) * 255.0
    return Scene("room", PointCloud(place, color, normal))


@pytest.mark.parametrize("tile", [4, 64])
def test_statistics_match_the_loops(rng: torch.Generator, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tiles in which they are computed."""
    monkeypatch.setattr(cell_statistics_module, "TILE", tile)
    cloud = room(rng).cloud
    assert cloud.color is not None and cloud.normal is not None
    found = cell_statistics(cloud, CONFIG)
    voxels = voxelise(cloud.coord, CONFIG.cell)
    assert torch.equal(found.inverse, voxels.inverse)
    cells, inverse = voxels.grid_coord, voxels.inverse
    n = len(cells)
    mean = {
        name: torch.stack([values[inverse == i].double().mean(0) for i in range(n)])
        for name, values in (("coord", cloud.coord), ("color", cloud.color / 255.0), ("normal", cloud.normal))
    }
    normal = torch.nn.functional.normalize(mean["normal"], dim=1)
    shape, color = found.parts["shape"], found.parts["color"]
    for i in range(0, n, 7):
        at_shape, at_color, at_normal = 2, 3, 2
        for size in CONFIG.sizes:
            half = size // 2
            inside = ((cells - cells[i]).abs() <= half).all(1)
            level = cells - cells[i]
            sideways = (level[:, :2].abs() <= half).all(1)
            above = int((sideways & ((level[:, 2] - half).abs() <= half)).sum())
            below = int((sideways & ((level[:, 2] + half).abs() <= half)).sum())
            shift = mean["coord"][inside].mean(0) - mean["coord"][i]
            expected = torch.stack(
                [
                    inside.sum().double().log(),
                    shift[2],
                    shift[:2].norm(),
                    torch.tensor(above + 1.0).double().log(),
                    torch.tensor(below + 1.0).double().log(),
                ]
            )
            torch.testing.assert_close(
                shape[i, at_shape : at_shape + 5].double(), expected, rtol=1e-4, atol=1e-5
            )
            values = mean["color"][inside]
            spread = values.std(0, correction=0)
            expected = torch.cat([values.mean(0), spread])
            torch.testing.assert_close(
                color[i, at_color : at_color + 6].double(), expected, rtol=1e-4, atol=1e-5
            )
            around = normal[inside].mean(0)
            expected = torch.stack(
                [around[2], normal[inside, 2].abs().mean(), shift @ normal[i], around @ normal[i]]
            )
            found_normal = found.parts["normal"][i, at_normal : at_normal + 4].double()
            torch.testing.assert_close(found_normal, expected, rtol=1e-4, atol=1e-5)
            at_shape, at_color, at_normal = at_shape + 5, at_color + 6, at_normal + 4


def test_statistics_do_not_depend_on_units_mirrors_and_right_angles(rng: torch.Generator) -> None:
    """Cells of a scene of whole cells: the same ones after these motions."""
    corner = torch.tensor([0.01, 0.01, 0.01])
    scene = room(rng)
    cloud = replace(scene.cloud, coord=(scene.cloud.coord / 0.25).round() * 0.25 + corner)
    scene = replace(scene, cloud=cloud)
    before = cell_statistics(scene.cloud, CONFIG)
    for motion in (scale_matrix(1.7), flip_matrix(True, False), rotation_matrix(torch.pi / 2, "z", None)):
        moved = scene.moved(motion)
        after = cell_statistics(moved.cloud, CONFIG, moved.units_per_metre)
        for group, values in before.parts.items():
            expected = values[before.inverse]
            torch.testing.assert_close(
                after.parts[group][after.inverse], expected, rtol=1e-3, atol=1e-3, msg=group
            )


def test_k_means_finds_separate_groups_and_repeats_itself(rng: torch.Generator) -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    group = torch.randint(4, (400,), generator=rng)
    rows = centres[group] + 0.3 * torch.randn(400, 2, generator=rng)
    found = k_means(rows, 4, torch.Generator().manual_seed(3))
    assert torch.equal(found, k_means(rows, 4, torch.Generator().manual_seed(3)))
    nearest = torch.cdist(rows, found).argmin(1)
    for one in range(4):
        members = nearest[group == one]
        assert len(torch.unique(members)) == 1
        mean = rows[group == one].mean(0)
        torch.testing.assert_close(found[members[0]], mean, rtol=1e-4, atol=1e-4)
    same = torch.zeros(10, 2)
    assert torch.isfinite(k_means(same, 3, torch.Generator().manual_seed(0))).all()


def fitted(scenes: list[Scene], config: ClustersConfig = CONFIG) -> Clustering:
    fit = ClusterFit(config, len(scenes))
    for scene in scenes:
        fit.add(scene)
    return fit.fit("digest")


def test_floor_and_walls_are_different_clusters(rng: torch.Generator) -> None:
    scene = room(rng)
    cluster = fitted([scene]).of_points(scene)
    assert scene.cloud.normal is not None
    inner = (scene.cloud.coord > 0.6).sum(1) == 2  # away from the edges
    floor = scene.cloud.normal[:, 2] > 0.5
    assert not set(cluster[inner & floor].tolist()) & set(cluster[inner & ~floor].tolist())


def test_a_scene_without_colours_is_average_in_them(rng: torch.Generator) -> None:
    scenes = [room(rng), room(rng), replace(room(rng), cloud=replace(room(rng).cloud, color=None))]
    fit = ClusterFit(CONFIG, 3)
    for scene in scenes:
        fit.add(scene)
    assert fit.left_out == ()
    clustering = fit.fit("")
    scaled = clustering.scaled(cell_statistics(scenes[2].cloud, CONFIG))
    first = clustering.widths["shape"]
    assert (scaled[:, first : first + clustering.widths["color"]] == 0).all()
    assert (clustering.of_points(scenes[2]) >= 0).all()
    bare = [replace(one, cloud=PointCloud(one.cloud.coord)) for one in scenes]
    shape = ClusterFit(CONFIG, 3)
    for scene in [*bare[:2], scenes[0]]:
        shape.add(scene)
    assert shape.left_out == ("color", "normal") and list(shape.fit("").widths) == ["shape"]


def test_pixels_have_the_cluster_of_the_nearest_point_within_reach(rng: torch.Generator) -> None:
    scene = room(rng, 800)
    clustering = fitted([scene])
    points = ClusterPoints.of(scene, clustering)
    places = scene.cloud.coord + 0.02 * torch.randn(800, 3, generator=rng)
    far = torch.tensor([[2.0, 1.5, 9.0]])
    found = points.at(torch.cat([places, far]))
    assert found[-1] == -1
    distance = torch.cdist(places, scene.cloud.coord)
    of_nearest = clustering.of_points(scene)[distance.argmin(1)]
    # Points are thinned to half the reach: beside a border between clusters another point may be the nearest.
    assert (found[:-1] == of_nearest).float().mean() > 0.95
    assert (points.at(scene.cloud.coord) >= 0).all()
    empty = ClusterPoints.of(Scene("none", PointCloud.empty()), clustering)
    assert (empty.at(places) == -1).all()


def test_centres_are_read_as_they_were_written(rng: torch.Generator, tmp_path: Path) -> None:
    clustering, path = fitted([room(rng)]), tmp_path / "clusters.safetensors"
    assert Clustering.read(path) is None
    clustering.write(path)
    found = Clustering.read(path)
    assert found is not None and found.config == CONFIG and found.widths == clustering.widths
    assert torch.equal(found.centre, clustering.centre) and found.digest == "digest"
    path.write_bytes(path.read_bytes()[:200])
    assert Clustering.read(path) is None


def test_settings_and_scenes_decide_the_digest() -> None:
    one = digest_of(CONFIG, ["a", "b"])
    assert one == digest_of(CONFIG, ["a", "b"]) != digest_of(CONFIG, ["a", "c"])
    assert one != digest_of(CONFIG.model_copy(update={"seed": 1}), ["a", "b"])


def test_too_few_cells_and_even_boxes_are_refused(rng: torch.Generator) -> None:
    with pytest.raises(SceneError, match="too few"):
        fitted([room(rng, 20)], CONFIG.model_copy(update={"n_clusters": 30}))
    with pytest.raises(ValidationError, match="odd number"):
        ClustersConfig(sizes=(3, 4))
