"""What training sees: torch datasets, augmentation, views and pixels, crops, voxels, label budgets."""
