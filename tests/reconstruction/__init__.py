"""Tests of meshes, paths, images and refinement."""
