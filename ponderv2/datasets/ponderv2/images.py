"""Images beside processed scenes, whatever the layout of the points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ponderv2.datasets.ponderv2 import recordings as ponderv2_recordings
from ponderv2.datasets.ponderv2 import views as ponderv2_views
from ponderv2.scenes.origin import Origin
from ponderv2.scenes.reader import FrameChoice
from ponderv2.scenes.scene import Frame


@dataclass(frozen=True)
class SceneImages:
    """Where they are looked for, and how their numbers are to be read."""

    root: Path
    depth_scale: float = 0.001
    """Metres per unit of depth in pickled views."""
    n_classes: int | None = None

    def are_there(self, place: Path) -> bool:
        """As far as names of files tell."""
        return ponderv2_views.has_views(place) or ponderv2_recordings.has_recording(self.root, place.name)

    def read(
        self, place: Path, labels: bool, choice: FrameChoice, origin: Origin = (0.0, 0.0, 0.0)
    ) -> tuple[tuple[Frame, ...], tuple[str, ...]]:
        """The frames of a scene and what was left out; without `labels` frames know of none.

        `origin`: what was subtracted from the points, and is from the cameras.
        """
        if choice == "none":
            return (), ()
        frames, notes = ponderv2_views.read_views(place, self.depth_scale, self.n_classes, origin)
        if not frames and not notes:
            split = place.parent.name
            frames, notes = ponderv2_recordings.read_recording(self.root, split, place.name, choice, origin)
        if not labels:
            frames = tuple(replace(frame, semantic_path=None) for frame in frames)
        return frames, notes
