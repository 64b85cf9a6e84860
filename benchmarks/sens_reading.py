"""Frames out of .sens recordings: ours beside the textbook way, in one run, and the memory of a long one.

Run: python -m benchmarks.sens_reading [--frames 6000] [--extract 24] [--repeats 5] [--json FILE]

The recording is generated (noisy 1296 x 968 JPEGs and 640 x 480 depth, a few distinct frames repeated) and
deleted afterwards; a frame takes about 0.4 MB, as those of ScanNet do on average. Times are those of this
process' processor, taken in turns; printed are medians and the medians of the ratios. Memory is the largest
resident set of a process of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ponderv2.io.images import encode_png16
from ponderv2.io.sens import open_sens

COLOR_SIZE, DEPTH_SIZE = (1296, 968), (640, 480)
DISTINCT = 12


def distinct_frames() -> list[bytes]:
    """What stands behind a pose: time stamps, lengths, image, depth. Surfaces with a sensor's noise."""
    rng = np.random.default_rng(0)
    frames = []
    column, row = np.meshgrid(np.linspace(0, 3, COLOR_SIZE[0]), np.linspace(0, 2, COLOR_SIZE[1]))
    x, y = np.meshgrid(np.linspace(0, 3, DEPTH_SIZE[0]), np.linspace(0, 2, DEPTH_SIZE[1]))
    for index in range(DISTINCT):
        waves = [np.sin(5 * column + index + k) + np.cos(7 * row - k * column) for k in range(3)]
        color = np.stack(waves, axis=-1) * 45 + 128 + rng.normal(0, 3, (*column.shape, 1))
        picture = io.BytesIO()
        Image.fromarray(color.clip(0, 255).astype(np.uint8)).save(picture, format="JPEG", quality=85)
        depth = 2000 + 500 * np.sin(2 * x + index) + 300 * np.floor(2 * y) + rng.normal(0, 1, x.shape)
        depth[rng.random(x.shape) < 0.02] = 0
        packed = zlib.compress(depth.astype("<u2").tobytes())
        sizes = struct.pack("<4Q", 0, 0, len(picture.getvalue()), len(packed))
        frames.append(sizes + picture.getvalue() + packed)
    return frames


def write_recording(path: Path, n_frames: int) -> None:
    """Version 4, JPEG and zlib, identity poses that wander."""
    color = [1170.0, 0, 647.75, 0, 0, 1170, 483.75, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    depth = [577.9, 0, 319.5, 0, 0, 577.9, 239.5, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    identity = np.eye(4).ravel().tolist()
    frames = distinct_frames()
    with path.open("wb") as file:
        file.write(struct.pack("<IQ", 4, 9) + b"StructSen")
        file.write(struct.pack("<64f", *color, *identity, *depth, *identity))
        file.write(struct.pack("<2i4IfQ", 2, 1, *COLOR_SIZE, *DEPTH_SIZE, 1000.0, n_frames))
        for index in range(n_frames):
            pose = np.eye(4)
            pose[0, 3] = 0.001 * index
            file.write(struct.pack("<16f", *pose.ravel()) + frames[index % len(frames)])
        file.write(struct.pack("<Q", 0))


class TextbookReader:
    """The way that is usually published: every frame in memory, byte by byte."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            (self.version,) = struct.unpack("I", file.read(4))
            (length,) = struct.unpack("Q", file.read(8))
            self.sensor = b"".join(struct.unpack("c" * length, file.read(length)))
            self.cameras = [np.array(struct.unpack("f" * 16, file.read(64))).reshape(4, 4) for _ in range(4)]
            self.kinds = struct.unpack("ii", file.read(8))
            self.sizes = struct.unpack("IIII", file.read(16))
            (self.shift,) = struct.unpack("f", file.read(4))
            (n_frames,) = struct.unpack("Q", file.read(8))
            self.frames: list[tuple[np.ndarray, bytes, bytes]] = []
            for _ in range(n_frames):
                pose = np.array(struct.unpack("f" * 16, file.read(64))).reshape(4, 4)
                file.read(16)
                n_color, n_depth = struct.unpack("QQ", file.read(16))
                color = b"".join(struct.unpack("c" * n_color, file.read(n_color)))
                depth = b"".join(struct.unpack("c" * n_depth, file.read(n_depth)))
                self.frames.append((pose, color, depth))

    def extract(self, folder: Path) -> None:
        """Decode and encode again, with the default settings of the library that published code calls."""
        import imageio.v2 as imageio

        for index, (pose, color, depth) in enumerate(self.frames):
            imageio.imwrite(folder / f"{index}.jpg", imageio.imread(color))
            values = np.frombuffer(zlib.decompress(depth), np.uint16).reshape(self.sizes[3], self.sizes[2])
            imageio.imwrite(folder / f"{index}.png", values)
            np.savetxt(folder / f"{index}.txt", pose, fmt="%f")


def textbook_extraction(path: Path, folder: Path) -> None:
    TextbookReader(path).extract(folder)


def our_extraction(path: Path, folder: Path) -> None:
    """The same files: the JPEG as it is, depth packed quickly."""
    sens = open_sens(path)
    for index in range(len(sens)):
        (folder / f"{index}.jpg").write_bytes(sens.color_bytes(index))
        (folder / f"{index}.png").write_bytes(encode_png16(sens.depth(index)))
        rows = (" ".join(f"{one:f}" for one in row) for row in sens.camera_to_world[index].tolist())
        (folder / f"{index}.txt").write_text("\n".join(rows) + "\n")


def our_frames(path: Path) -> None:
    """What `ponder prepare` does with every frame: colour resized to depth, encoded again."""
    from ponderv2.datasets.recordings import Limits, register
    from ponderv2.datasets.rgbd.layouts import sens as sens_file
    from ponderv2.io.images import encode_jpeg

    recording = sens_file.read(path)
    for raw in recording.frames:
        frame = register(raw, recording, Limits(0.1, 10.0, None)).frame
        encode_jpeg(frame.color)
        encode_png16(frame.depth)


def textbook_frames(path: Path) -> None:
    """Textbook reader, full decoding, resizing, the default PNG encoder."""
    reader = TextbookReader(path)
    for _, color, depth in reader.frames:
        picture = Image.open(io.BytesIO(color)).convert("RGB").resize(DEPTH_SIZE, Image.Resampling.BILINEAR)
        picture.save(io.BytesIO(), format="JPEG", quality=95, subsampling=0)
        values = np.frombuffer(zlib.decompress(depth), np.uint16).reshape(reader.sizes[3], reader.sizes[2])
        Image.fromarray(values).save(io.BytesIO(), format="PNG")


def seconds(step: Callable[[], Any]) -> float:
    """Processor time of this process."""
    start = time.process_time()
    step()
    return time.process_time() - start


def into_empty(work: Callable[[Path, Path], None], path: Path, folder: Path) -> Callable[[], None]:
    def step() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        work(path, folder)

    return step


def compare(path: Path, n_frames: int, folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Frames a second and core of both ways, in turns."""
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "index": (lambda: TextbookReader(path), lambda: open_sens(path)),
        "extraction": (
            into_empty(textbook_extraction, path, folder),
            into_empty(our_extraction, path, folder),
        ),
        "prepared frames": (lambda: textbook_frames(path), lambda: our_frames(path)),
    }
    found: dict[str, dict[str, float]] = {}
    for name, (textbook, ours) in pairs.items():
        ours()  # what is imported once does not count
        times = [(seconds(textbook), seconds(ours)) for _ in range(repeats)]
        slow, fast = (n_frames / statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(one / other for one, other in times)
        found[name] = {"textbook_fps": slow, "ours_fps": fast, "ratio": ratio}
        print(f"{name:16s} textbook {slow:9.1f} fps   ours {fast:9.1f} fps   ratio {ratio:7.1f}")
    return found


def index_of_long_recording(path: Path, repeats: int) -> float:
    """Frames a second of the index alone."""
    n_frames = len(open_sens(path))
    fps = n_frames / statistics.median(seconds(lambda: open_sens(path)) for _ in range(repeats))
    print(f"index of {n_frames} frames: {fps:.0f} fps")
    return fps


def prepare_alone(folder: Path, stride: int) -> None:
    """Run in a process of its own by `memory_of_prepare`: one scene with a long recording."""
    from ponderv2.workflows import prepare
    from ponderv2.workflows.config import PrepareConfig

    source = {"kind": "scannet", "path": folder / "raw", "stride": stride, "semantics": False}
    start = time.perf_counter()
    result = prepare.run(
        PrepareConfig.model_validate({"source": source, "out": folder / "out", "workers": 1})
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    taken = time.perf_counter() - start
    print(json.dumps({"frames": result.scenes[0].n_frames, "peak_mib": peak, "seconds": taken}))


def memory_of_prepare(folder: Path, stride: int) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.sens_reading",
        "--alone",
        str(folder),
        "--stride",
        str(stride),
    ]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(answer.strip().splitlines()[-1])
    print(f"prepare, every {stride}th frame: {found['frames']} frames, peak {found['peak_mib']:.0f} MiB")
    return found


def write_mesh(path: Path, n_side: int = 400) -> None:
    """A wavy floor of 160,000 vertices, as large as a real scene's."""
    x, y = np.meshgrid(np.linspace(0, 6, n_side), np.linspace(0, 6, n_side))
    vertex = np.zeros(n_side**2, dtype=[("place", "<f4", 3), ("color", "u1", 4)])
    vertex["place"] = np.stack([x, y, 0.1 * np.sin(3 * x) * np.cos(2 * y)], axis=-1).reshape(-1, 3)
    corner = np.arange(n_side**2).reshape(n_side, n_side)[:-1, :-1].ravel()
    face = np.zeros(2 * len(corner), dtype=[("n", "u1"), ("corner", "<i4", 3)])
    face["n"] = 3
    face["corner"] = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + n_side], axis=1),
            np.stack([corner + 1, corner + n_side + 1, corner + n_side], axis=1),
        ]
    )
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertex)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {channel}" for channel in ("red", "green", "blue", "alpha")]
    lines += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header\n"]
    path.write_bytes("\n".join(lines).encode() + vertex.tobytes() + face.tobytes())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=6000, help="of the long recording; 0 = none")
    parser.add_argument("--extract", type=int, default=24, help="frames of the short recording")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stride", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="for the recordings; by default a temporary one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.alone is not None:
        prepare_alone(arguments.alone, arguments.stride)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        short = folder / "short.sens"
        write_recording(short, arguments.extract)
        figures: dict[str, Any] = {
            "speed": compare(short, arguments.extract, folder / "extracted", arguments.repeats)
        }
        if arguments.frames:
            scene = folder / "raw/scans/scene0000_00"
            scene.mkdir(parents=True)
            write_mesh(scene / "scene0000_00_vh_clean_2.ply")
            write_recording(scene / "scene0000_00.sens", arguments.frames)
            figures["recording_bytes"] = (scene / "scene0000_00.sens").stat().st_size
            figures["index_fps"] = index_of_long_recording(scene / "scene0000_00.sens", arguments.repeats)
            figures["memory"] = memory_of_prepare(folder, arguments.stride)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
