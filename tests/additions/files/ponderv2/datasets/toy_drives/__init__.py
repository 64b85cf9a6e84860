"""Drives with a LiDAR: a toy data set."""
