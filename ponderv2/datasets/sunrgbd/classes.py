"""The 10 classes of SUN RGB-D's detection benchmark, and the usual sizes of their boxes."""

from __future__ import annotations

BOX_CLASSES = (
    "bed",
    "table",
    "sofa",
    "chair",
    "toilet",
    "desk",
    "dresser",
    "night_stand",
    "bookshelf",
    "bathtub",
)
"""In the order of VoteNet and mmdetection3d. Objects of the other 27 classes have no box."""

MEAN_SIZES = (
    (2.114256, 1.620300, 0.927272),
    (0.791118, 1.279516, 0.718182),
    (0.923508, 1.867419, 0.845495),
    (0.591958, 0.552978, 0.827272),
    (0.699104, 0.454178, 0.756250),
    (0.695190, 1.346299, 0.736364),
    (0.528526, 1.002642, 1.172878),
    (0.500618, 0.632163, 0.683424),
    (0.404671, 1.071108, 1.688889),
    (0.765840, 1.398258, 0.472728),
)
"""Length, width, height of each class, metres: medians over the training images with labels v2, as VoteNet
uses them with labels v1, too."""
