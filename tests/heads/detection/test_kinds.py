"""Every kind of head is built from its settings, and reads what they say it reads."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from ponderv2.geometry.boxes import Boxes
from ponderv2.heads.detection.kinds import DetectionHeadConfig, build_detection_head
from tests.heads.detection import scenes

SETTINGS = [
    {"kind": "center", "widths": [8], "layers": [1], "neck": 8, "shared": 8},
    {"kind": "fcaf3d", "widths": [8, 8], "channels": 8},
    {"kind": "votenet", "mean_sizes": {name: [1.0, 1.0, 1.0] for name in scenes.CLASSES}},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["kind"])
def test_a_head_is_built_by_its_kind(settings):
    config = TypeAdapter(DetectionHeadConfig).validate_python(settings)
    # Two cells above each other are one column.
    points = config.reads == "points"
    head = build_detection_head(config, 16 if points else 32, scenes.CLASSES)
    outputs = head(scenes.no_points(1) if points else scenes.volume())
    assert len(head.decode(outputs)) == 1
    assert all(float(term.detach()) >= 0 for term in head.losses(outputs, [Boxes.empty()]).values())
    with pytest.raises(ValueError, match=r"points|volume"):
        head(scenes.volume() if points else scenes.no_points(1))


def test_a_head_that_is_none_is_refused():
    with pytest.raises(ValueError, match="fcaf3d"):
        TypeAdapter(DetectionHeadConfig).validate_python({"kind": "fcaf4d"})
