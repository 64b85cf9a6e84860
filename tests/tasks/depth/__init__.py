"""Depth of images."""
