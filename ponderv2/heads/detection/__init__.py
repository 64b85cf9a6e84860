"""Heads of detectors: features of a scene to boxes."""
