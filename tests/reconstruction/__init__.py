"""Tests of meshes, paths, pictures and refinement."""
