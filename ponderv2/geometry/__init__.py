"""Pure functions and small values: cameras, rays, voxels, volumes, meshes. Imports torch only."""
