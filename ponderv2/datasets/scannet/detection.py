"""The 18 classes of ScanNet's detection benchmark, and the mean sizes of their axis-aligned boxes."""

from __future__ import annotations

from ponderv2.datasets.scannet import scannet20

NO_OBJECTS = ("wall", "floor")
"""Of the 20 classes those without objects."""
BOX_CLASSES = tuple(name for name in scannet20.CLASS_NAMES if name not in NO_OBJECTS)
NYU40_IDS = tuple(
    number
    for number, name in zip(scannet20.NYU40_IDS, scannet20.CLASS_NAMES, strict=True)
    if name not in NO_OBJECTS
)
"""Id of each class. VoteNet and mmdetection3d print 39, other furniture, as 'garbagebin'."""

MEAN_SIZES = (
    (0.770, 0.812, 0.926),
    (1.877, 1.843, 1.193),
    (0.613, 0.615, 0.718),
    (1.396, 1.512, 0.834),
    (0.979, 1.068, 0.633),
    (0.532, 0.596, 1.750),
    (0.962, 0.725, 1.148),
    (0.832, 1.049, 1.688),
    (0.211, 0.421, 0.537),
    (1.444, 1.897, 0.270),
    (1.029, 1.404, 0.876),
    (1.377, 0.655, 1.681),
    (0.665, 0.711, 1.299),
    (0.420, 0.379, 1.751),
    (0.594, 0.591, 0.739),
    (0.509, 0.507, 0.301),
    (1.151, 1.055, 0.497),
    (0.475, 0.492, 0.580),
)
"""Size in x, y and z of each class, metres, to a millimetre; the averages that VoteNet ships."""
