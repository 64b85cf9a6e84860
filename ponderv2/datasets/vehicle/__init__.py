"""Drives of own vehicles: LiDAR, cameras, calibration and poses in one file, or as DGP writes them."""
