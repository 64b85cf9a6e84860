"""Settings of generated streets as a data set: those of the generator."""

from __future__ import annotations

from ponderv2.datasets.settings import DatasetSettings
from ponderv2.synthetic.streets.config import StreetConfig


class StreetsConfig(StreetConfig, DatasetSettings):
    """Generated streets with a LiDAR and six cameras, written in the layout of nuScenes v1.0."""
