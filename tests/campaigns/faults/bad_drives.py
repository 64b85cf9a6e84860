"""Drives broken file by file and value by value: each fault is refused by name or reported, none is silent.

    python -m tests.campaigns.faults.bad_drives                   every fault of every kind of drives
    python -m tests.campaigns.faults.bad_drives kitti --verbose   of one kind, with the reports

The drives are tiny and sound. One fault at a time goes into a copy of them, which is prepared, checked and
read in place, with every image and sweep. What is reported of sound drives does not count.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ponderv2.checks.config import CheckConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.kitti.config import KittiConfig
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.semantickitti.config import SemanticKittiConfig
from ponderv2.datasets.settings import DatasetSettings
from ponderv2.datasets.sunrgbd.config import SunRgbdConfig
from ponderv2.datasets.vehicle.config import VehicleConfig
from ponderv2.errors import PonderError
from ponderv2.scenes.scene import Scene
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.campaigns.faults.bad_datasets import FOLDER, Files
from tests.campaigns.faults.fault_kinds import Fault
from tests.campaigns.faults.kitti_faults import kitti, of_kitti, of_semantickitti, semantickitti
from tests.campaigns.faults.nuscenes_faults import nuscenes, of_nuscenes, of_prepared, prepared
from tests.campaigns.faults.sunrgbd_faults import of_official, of_text, official, text
from tests.campaigns.faults.vehicle_faults import dgp, of_dgp, of_vehicle, vehicle
from tests.workflows.heard import Heard


@dataclass(frozen=True)
class Drives:
    """Drives of one format."""

    files: Callable[[], Files]
    faults: Callable[[Files], Iterator[Fault]]
    source: Callable[[Path], DatasetSettings] | None = None
    """None: they are prepared, and are checked and read."""


DRIVES: dict[str, Drives] = {
    "nuscenes": Drives(nuscenes, of_nuscenes, lambda root: NuscenesConfig(path=root, sweeps=3)),
    "semantickitti": Drives(
        semantickitti, of_semantickitti, lambda root: SemanticKittiConfig(path=root, sweeps=2)
    ),
    "kitti": Drives(kitti, of_kitti, lambda root: KittiConfig(path=root)),
    "vehicle": Drives(vehicle, of_vehicle, lambda root: VehicleConfig(path=root)),
    "dgp": Drives(dgp, of_dgp, lambda root: VehicleConfig(path=root)),
    "sunrgbd": Drives(official, of_official, lambda root: SunRgbdConfig(path=root)),
    "sunrgbd text": Drives(text, of_text, lambda root: SunRgbdConfig(path=root)),
    "prepared streets": Drives(prepared, of_prepared),
}


def faults_of(name: str) -> list[Fault]:
    """Every fault of a kind of drives."""
    return list(DRIVES[name].faults(DRIVES[name].files()))


def reports_of(drives: Drives, files: Files, folder: Path) -> set[str]:
    """Reports about them, prepared and in place. Anything but a PonderError is raised."""
    root = folder / "raw"
    _write(root, files)
    try:
        found = {*_prepared(drives, root, folder / "out"), *_in_place(root)}
        left = [
            path
            for path in (folder / "out").rglob("*")
            if path.name.startswith(".") or ".partial" in path.name
        ]
        assert not left, f"half written: {left}"
        return {one.replace(str(folder), "") for one in found}
    finally:
        shutil.rmtree(folder)


def unreported(drives: Drives, fault: Fault, known: set[str], folder: Path) -> tuple[str, set[str]]:
    """What is wrong with the outcome of a fault, empty where nothing is; and the reports."""
    files = dict(drives.files())
    fault.change(files)
    try:
        said = reports_of(drives, files, folder) - known
    except Exception as error:  # noqa: BLE001 - what is looked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})", set()
    if fault.silent or any(word in one for word in fault.words for one in said):
        return "", said
    return ("nothing is reported" if not said else f"none of {fault.words} is named"), said


def _write(root: Path, files: Files) -> None:
    root.mkdir(parents=True)
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if data == FOLDER:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)


def _prepared(drives: Drives, root: Path, out: Path) -> Iterator[str]:
    heard, check = Heard(), CheckConfig(n_pixels=50)
    try:
        if drives.source is None:
            result = prepare.check(
                PrepareConfig(source=VehicleConfig(), out=root, workers=1, check=check), heard
            )
        else:
            settings = PrepareConfig(source=drives.source(root), out=out, workers=1, check=check)
            result = prepare.run(settings, heard)
    except PonderError as error:
        yield error.message
        return
    finally:
        yield from (*heard.noted, *heard.warned)
    for scene in result.scenes:
        yield from (*scene.why, *scene.notes)
    for drive in result.drives:
        yield drive.why
        yield from () if drive.found is None else (drive.found.cause, *drive.found.notes)


def _in_place(root: Path) -> Iterator[str]:
    try:
        folder = open_folder(root)
        for split in folder.info.splits:
            yield from folder.warnings(split)
            for name in folder.names(split):
                yield from _read(lambda s=split, n=name: folder.read(n, s))
    except PonderError as error:
        yield error.message


def _read(read: Callable[[], Scene]) -> Iterator[str]:
    try:
        scene = read()
    except PonderError as error:
        yield error.message
        return
    for one in (*[frame.read_color for frame in scene.frames], *[sweep.read for sweep in scene.sweeps]):
        try:
            one()
        except PonderError as error:
            yield error.message


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.faults.bad_drives",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("drives", nargs="*", metavar="DRIVES", help=", ".join(DRIVES))
    parser.add_argument("--verbose", action="store_true", help="print what is reported of each fault")
    wanted = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        os.environ["PONDER_CACHE"] = f"{name}/cache"
        for kind in wanted.drives or DRIVES:
            drives, faults = DRIVES[kind], faults_of(kind)
            known = reports_of(drives, drives.files(), Path(name, "sound"))
            wrong = 0
            for fault in faults:
                why, said = unreported(drives, fault, known, Path(name, "broken"))
                wrong += bool(why)
                if why or wanted.verbose:
                    print(f"{kind}: {fault.name}: {why or 'ok'}")
                    for one in sorted(said)[:4]:
                        print(f"    {one[:200]}")
            print(f"{kind}: {len(faults)} faults, {wrong} silent or wrong")
            bad += wrong
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
