"""S3DIS (Stanford3dDataset_v1.2) with images and meshes of 2D-3D-S."""
