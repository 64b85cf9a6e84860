"""Overlaps and suppression compute where the boxes are, and give there what they give on the CPU."""

import torch

from ponderv2.geometry.box_overlap import box_iou, hull_iou, matched_box_iou, plane_iou
from ponderv2.geometry.suppression import box_nms, circle_nms, hull_nms, plane_nms
from tests.geometry.test_suppression import random_boxes
from tests.second_device import OnDevice, second_device


def test_a_second_device_gives_what_the_cpu_gives(rng, monkeypatch):
    boxes, score = random_boxes(rng, 60, 3.0)
    group = torch.randint(3, (60,), generator=rng)
    functions = [
        *(lambda b, s, g, iou=iou: iou(b, b[:20]) for iou in (plane_iou, box_iou, hull_iou)),
        lambda b, s, g: matched_box_iou(b, b.flip(0)),
        *(lambda b, s, g, nms=nms: nms(b, s, 0.2, g) for nms in (plane_nms, box_nms, hull_nms)),
        lambda b, s, g: circle_nms(b, s, 2.0, at_most=9),
        lambda b, s, g: plane_nms(b[:0], s[:0], 0.2, g[:0]),
    ]
    expected = [function(boxes, score, group) for function in functions]
    with second_device(monkeypatch) as device:
        there = [values.to(device) for values in (boxes, score, group)]
        for function, right in zip(functions, expected, strict=True):
            found = function(*there)
            assert isinstance(found, OnDevice) and torch.equal(found.inner, right)
