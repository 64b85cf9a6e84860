"""Pixels of images at many depths add their features to the cells of a volume."""
