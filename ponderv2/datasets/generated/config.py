"""Settings of generated rooms as a data set: those of the generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ponderv2.datasets.settings import DatasetSettings
from ponderv2.synthetic.config import RoomConfig

if TYPE_CHECKING:
    from ponderv2.datasets.reader import DatasetReader


class SyntheticConfig(RoomConfig, DatasetSettings):
    """Generated rooms: furnished, with exact depth, normals, labels and mesh, and noisy scans of them."""

    def reader(self) -> DatasetReader:
        """All rooms."""
        from ponderv2.datasets.generated.reader import find

        return find(self)
