"""Sizes of objects by class, which VoteNet predicts residuals of. Never imports torch."""

from __future__ import annotations

Sizes = tuple[tuple[float, float, float], ...]
"""Length along the heading, width, height of each class; metres."""

SCANNET18: Sizes = (
    (0.770, 0.812, 0.926),  # cabinet
    (1.877, 1.843, 1.193),  # bed
    (0.613, 0.615, 0.718),  # chair
    (1.396, 1.512, 0.834),  # sofa
    (0.979, 1.068, 0.633),  # table
    (0.532, 0.596, 1.750),  # door
    (0.962, 0.725, 1.148),  # window
    (0.832, 1.049, 1.688),  # bookshelf
    (0.211, 0.421, 0.537),  # picture
    (1.444, 1.897, 0.270),  # counter
    (1.029, 1.404, 0.876),  # desk
    (1.377, 0.655, 1.681),  # curtain
    (0.665, 0.711, 1.299),  # refrigerator
    (0.420, 0.379, 1.751),  # shower curtain
    (0.594, 0.591, 0.739),  # toilet
    (0.509, 0.507, 0.301),  # sink
    (1.151, 1.055, 0.497),  # bathtub
    (0.475, 0.492, 0.580),  # other furniture
)
"""Of the 18 classes of ScanNet boxes along the axes; as in the VoteNet repository."""

SUNRGBD10: Sizes = (
    (2.114256, 1.620300, 0.927272),  # bed
    (0.791118, 1.279516, 0.718182),  # table
    (0.923508, 1.867419, 0.845495),  # sofa
    (0.591958, 0.552978, 0.827272),  # chair
    (0.699104, 0.454178, 0.756250),  # toilet
    (0.695190, 1.346299, 0.736364),  # desk
    (0.528526, 1.002642, 1.172878),  # dresser
    (0.500618, 0.632163, 0.683424),  # night stand
    (0.404671, 1.071108, 1.688889),  # bookshelf
    (0.765840, 1.398258, 0.472728),  # bathtub
)
"""Of the ten classes of SUN RGB-D, medians; as in the VoteNet repository."""

TABLES: dict[str, Sizes] = {"scannet18": SCANNET18, "sunrgbd10": SUNRGBD10}
