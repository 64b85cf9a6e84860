"""Scenes in which no point is far from all others, for everything that needs one box around a scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ponderv2.scenes.origin import far_outliers
from ponderv2.scenes.scene import Scene


def with_near_points(scene: Scene) -> Scene:
    """Points far from all others where their nearest other point is: they move no grid.

    Every point keeps its place in the list, and so gets a class.
    """
    coord = scene.cloud.coord.numpy()
    far = far_outliers(coord)
    if not far.any():
        return scene
    from scipy.spatial import KDTree

    moved = coord.copy()
    moved[far] = coord[~far][np.asarray(KDTree(coord[~far]).query(coord[far])[1])]
    return replace(scene, cloud=replace(scene.cloud, coord=torch.from_numpy(moved)))
