"""Opens a folder of scenes, whoever wrote it."""

from __future__ import annotations

from pathlib import Path

from ponderv2.scenes.folders import SceneFolders
from ponderv2.store.store import SceneStore, is_store


def open_folder(root: Path) -> SceneFolders:
    """The scenes in a folder: prepared here, or processed by another program and read in place.

    Raises SceneError with what to type, also where there is no scene.
    """
    from ponderv2.datasets.recognise import recognise

    root = Path(root)
    found = recognise(root) if root.is_dir() and not is_store(root) else None
    return SceneStore.open(root) if found is None else SceneFolders(root, *found)
