"""`ponder prepare` of each source beside the simple way to the same images and points, in one run.

Run from the project's root: `python -m benchmarks.prepare_readers [--frames 12] [--repeats 5] [--json FILE]`

One generated scene per source: a `.sens` recording with its mesh (scannet), a zipped room with its panorama
(structured3d), posed images of 640 x 480 (rgbd). The simple way is what published scripts and tutorials do:
every frame decoded byte by byte or by Pillow and encoded with the defaults; points by unprojecting whole
images and `np.unique` (structured3d), by Open3D's legacy fusion (rgbd), by trimesh (scannet). Ours also
checks poses and writes a report. Times are those of this process' processors, taken in turns.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.sens_reading import textbook_frames, write_mesh, write_recording
from ponderv2.reconstruction.fusion import load_open3d
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.datasets import structured3d_room as room

SIZE = (640, 480)
ANGLES = (0.6, float(np.arctan(np.tan(0.6) * 480 / 640)))
PANORAMA = (1024, 512)


@dataclass(frozen=True)
class Case:
    """A source in a folder: our options, and the simple way from there."""

    source: dict[str, Any]
    simple: Callable[[Path], None]


def views(n_frames: int) -> list[room.View]:
    """Around the middle of the room."""
    turns = np.linspace(0, 2 * np.pi, n_frames, endpoint=False)
    return [
        room.View((3.2 + 0.3 * np.cos(a), -0.2 + 0.3 * np.sin(a), 1.4), (np.cos(a), np.sin(a), -0.2))
        for a in turns
    ]


def lens() -> np.ndarray:
    """Of the images of `views`."""
    x, y = (side / 2 / np.tan(angle) for side, angle in zip(SIZE, ANGLES, strict=True))
    return np.array([[x, 0, (SIZE[0] - 1) / 2], [0, y, (SIZE[1] - 1) / 2], [0, 0, 1.0]])


def pose(view: room.View) -> np.ndarray:
    """Camera to world."""
    right, up, forward = view.basis()
    found = np.eye(4)
    found[:3] = np.stack([right, -up, forward, np.array(view.eye)], axis=1)
    return found


def save_frame(out: Path, name: str, color: np.ndarray, depth: np.ndarray) -> None:
    """With Pillow's defaults, at the quality that published images have."""
    Image.fromarray(color).save(out / f"{name}.jpg", quality=95, subsampling=0)
    Image.fromarray(depth).save(out / f"{name}.png")


def scannet(folder: Path, n_frames: int) -> Case:
    scene = folder / "scans/scene0000_00"
    scene.mkdir(parents=True)
    write_mesh(scene / "scene0000_00_vh_clean_2.ply")
    write_recording(scene / "scene0000_00.sens", n_frames)

    def simple(out: Path) -> None:
        import trimesh

        textbook_frames(scene / "scene0000_00.sens")
        mesh = trimesh.load(scene / "scene0000_00_vh_clean_2.ply", process=False)
        np.savez(out / "cloud.npz", coord=mesh.vertices, normal=mesh.vertex_normals)

    return Case({"kind": "scannet", "path": folder, "stride": 1, "semantics": False}, simple)


def rgbd(folder: Path, n_frames: int) -> Case:
    folder.mkdir(parents=True)
    fx, fy, cx, cy = lens()[[0, 1, 0, 1], [0, 1, 2, 2]]
    (folder / "camera.txt").write_text(f"{fx} {fy} {cx} {cy}\n")
    for number, view in enumerate(views(n_frames)):
        seen, name = room.exact_image(view, SIZE, ANGLES), folder / f"frame-{number:06d}"
        Image.fromarray(seen["rgb_rawlight.png"]).save(f"{name}.color.jpg", quality=92)
        Image.fromarray(seen["depth.png"]).save(f"{name}.depth.png")
        np.savetxt(f"{name}.pose.txt", pose(view))

    def simple(out: Path) -> None:
        open3d = load_open3d()

        color_type = open3d.pipelines.integration.TSDFVolumeColorType.RGB8
        volume = open3d.pipelines.integration.ScalableTSDFVolume(0.02, 0.08, color_type)
        camera = open3d.camera.PinholeCameraIntrinsic(*SIZE, fx, fy, cx, cy)
        for path in sorted(folder.glob("*.color.jpg")):
            stem = str(path).removesuffix(".color.jpg")
            color = np.array(Image.open(path).convert("RGB"))
            depth = np.array(Image.open(f"{stem}.depth.png")).astype(np.uint16)
            save_frame(out, Path(stem).name, color, depth)
            pair = open3d.geometry.RGBDImage.create_from_color_and_depth(
                open3d.geometry.Image(color), open3d.geometry.Image(depth), 1000.0, 10.0, False
            )
            volume.integrate(pair, camera, np.linalg.inv(np.loadtxt(f"{stem}.pose.txt")))
        cloud = volume.extract_point_cloud()
        np.savez(out / "cloud.npz", coord=cloud.points, color=cloud.colors, normal=cloud.normals)

    return Case({"kind": "rgbd", "path": folder, "intrinsics": folder / "camera.txt"}, simple)


def structured3d(folder: Path, n_frames: int) -> Case:
    chosen = views(n_frames)
    files = room.room_files(views=chosen, size=SIZE)
    for name in files:
        if name.endswith("camera_pose.txt"):
            files[name] = room.pose_line(chosen[int(name.split("/")[-2])], ANGLES)
    for number, view in enumerate(chosen):
        base = f"Structured3D/scene_00007/2D_rendering/123/perspective/full/{number}"
        for name, values in room.exact_image(view, SIZE, ANGLES).items():
            files[f"{base}/{name}"] = room.png(values)
    for name, values in room.panorama(PANORAMA).items():
        files[f"Structured3D/scene_00007/2D_rendering/123/panorama/full/{name}"] = room.png(values)
    room.write_zips(folder, files)

    def simple(out: Path) -> None:
        points: list[np.ndarray] = []
        for path in sorted(folder.glob("*.zip")):
            with zipfile.ZipFile(path) as archive:
                for name in (one for one in archive.namelist() if one.endswith("/depth.png")):
                    points.append(_unprojected(archive, name.removesuffix("depth.png"), chosen, out))
        every = np.concatenate(points)
        _, index = np.unique(np.floor(every[:, :3] / 0.01).astype(np.int64), axis=0, return_index=True)
        np.save(out / "cloud.npy", every[index])

    return Case({"kind": "structured3d", "path": folder}, simple)


def _unprojected(archive: zipfile.ZipFile, base: str, chosen: list[room.View], out: Path) -> np.ndarray:
    """x, y, z, colour, normal, class of every pixel of one image; perspective views are saved too."""

    def read(name: str) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(archive.read(base + name))))

    color, depth, semantic = read("rgb_rawlight.png")[..., :3], read("depth.png"), read("semantic.png")
    number = base.rstrip("/").rsplit("/", 1)[-1]
    if "/panorama/" in base:
        origin = room.CENTRE
        turn = 2 * np.pi * ((np.arange(depth.shape[1]) + 0.5) / depth.shape[1] - 0.5)[None, :]
        rise = np.pi * (0.5 - (np.arange(depth.shape[0]) + 0.5) / depth.shape[0])[:, None]
        ray = np.stack(
            [np.cos(rise) * np.sin(turn), np.cos(rise) * np.cos(turn), np.sin(rise) + 0 * turn], axis=-1
        )
    else:
        save_frame(out, number, color, depth)
        row, column = np.mgrid[: depth.shape[0], : depth.shape[1]]
        turned = pose(chosen[int(number)])
        pixel = np.stack([column, row, np.ones_like(row)], axis=-1).astype(float)
        ray, origin = pixel @ np.linalg.inv(lens()).T @ turned[:3, :3].T, turned[:3, 3]
    point = origin + ray * (depth / 1000.0)[..., None]
    normal = np.cross(np.gradient(point, axis=1), np.gradient(point, axis=0))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    return np.concatenate([point, color, normal, semantic[..., None]], axis=-1).reshape(-1, 10)


CASES = {"scannet": scannet, "rgbd": rgbd, "structured3d": structured3d}


def seconds(work: Callable[[], object], out: Path) -> float:
    """Processor seconds, into an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(case: Case, folder: Path, n_frames: int, repeats: int) -> dict[str, float]:
    """Medians of both ways."""
    out = folder / "ours/store"
    config = PrepareConfig.model_validate({"source": case.source, "out": out, "workers": 1})
    times = []
    for turn in range(repeats + 1):
        simple = seconds(lambda: case.simple(folder / "simple"), folder / "simple")
        ours = seconds(lambda: prepare.run(config), folder / "ours")
        if turn:
            times.append((simple, ours))
    slow, fast = (median(column) for column in zip(*times, strict=True))
    return {
        "frames": n_frames,
        "simple_seconds": slow,
        "ours_seconds": fast,
        "ratio": median(one / other for one, other in times),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    results = {}
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            case = CASES[name](Path(folder) / "raw", options.frames)
            results[name] = compare(case, Path(folder), options.frames, options.repeats)
        print(name + ": " + ", ".join(f"{k} {v:.4g}" for k, v in results[name].items()), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
