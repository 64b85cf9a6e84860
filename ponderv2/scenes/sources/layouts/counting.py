"""Do poses count from 0 or from 1? The depth images tell where numbers do not. Metres."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ponderv2.checks.agreement import Candidate, DepthImage, decide, spread_frames
from ponderv2.errors import SceneError
from ponderv2.scenes.sources.capture import Lens, PictureFile
from ponderv2.scenes.sources.pairing import Decide, Pairing

LOOKED_AT = 16
"""Frames."""
NONE = 65535
"""In a depth image: no measurement, as 0 is."""


def by_depth(depths: tuple[Path, ...], lens: Lens, depth_scale: float) -> Decide:
    """Chooses the pairing under which depth images agree with each other."""

    def chosen(options: Mapping[int, Pairing]) -> tuple[int | None, str]:
        poses = {
            first: {
                one.depth: one.camera_to_world
                for one in pairing.frames
                if np.isfinite(one.camera_to_world).all()
            }
            for first, pairing in options.items()
        }
        common = sorted(set.intersection(*(set(one) for one in poses.values())))
        places = [common[index] for index in spread_frames(len(common), LOOKED_AT)]
        if len(places) < 2 or lens.intrinsics[1, 1] < 0:
            return None, ""
        try:
            images = [_depth(depths[place or 0], lens, depth_scale) for place in places]
        except SceneError:  # reported when the frame is read
            return None, ""
        candidates = [
            Candidate(str(first), np.stack([found[place] for place in places]))
            for first, found in poses.items()
        ]
        decision = decide(images, candidates)
        if not decision.clear:
            return None, ""
        shares = " against ".join(f"{100 * share:.0f} %" for _, share in decision.scores)
        return int(decision.best), f"so depth images agree with each other ({shares})"

    return chosen


def _depth(path: Path, lens: Lens, depth_scale: float) -> DepthImage:
    values = PictureFile(path).depth().astype(np.float64)
    height, width = values.shape
    return DepthImage(np.where(values < NONE, values, 0) * depth_scale, lens.at_size(width, height))
