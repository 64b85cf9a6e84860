"""What is measured, against what: `python -m benchmarks --list`. Each is a module with `main(argv)`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A measurement of speed or memory."""

    what: str
    against: str
    """Measured in the same run, in turns."""
    quick: str = ""
    """Arguments of a run that takes seconds."""


ITEMS = {
    "training_step": Item("the published-width step", "limits of the machine", "--repeats 1 --precision 32"),
    "driving_step": Item(
        "a step on drives: LiDAR, cameras, both, lidarseg",
        "limits of the machine",
        "--repeats 1 --only lidar",
    ),
    "pretext_targets": Item("what each target adds to a step", "the step without targets", "--repeats 1"),
    "sparse_convolution": Item("layers and networks", "textbook form, spconv", "--repeats 1"),
    "rendering": Item(
        "a training step of the renderer", "grid_sample, double backward", "--rays 32 --repeats 1"
    ),
    "image_rendering": Item(
        "an image of 640 x 480", "all rays, autograd, heads per sample", "--chunks 1 --semantic 0"
    ),
    "mesh_extraction": Item(
        "a mesh of a field", "dense grid, marching cubes in one go", "--resolutions 32 --repeats 1"
    ),
    "sens_reading": Item("frames of .sens", "published reader", "--frames 0 --extract 2 --repeats 1"),
    "s3dis_reading": Item("text of S3DIS", "np.loadtxt", "--points 20000 --repeats 1"),
    "prepare_readers": Item("`ponder prepare` of each source", "the simple way", "--frames 2 --repeats 1"),
    "data_loading": Item(
        "samples for pre-training", "a loader that decodes every image", "--samples 4 --repeats 1"
    ),
    "voxel_sampling": Item("voxels of a cloud", "FNV, argsort, unique", "--points 20000 --repeats 1"),
    "instance_clustering": Item(
        "points to objects", "all pairs, k-d tree, search", "--points 5000 --spread 0.1 --repeats 1"
    ),
    "box_suppression": Item(
        "non-maximum suppression of boxes", "one box against all that are left", "--boxes 500 --repeats 1"
    ),
    "evaluation_voting": Item(
        "voting over views", "published procedure", "--points 3000 --network-points 1000 --repeats 1"
    ),
    "nuscenes_score": Item(
        "the nuScenes detection score", "nuscenes-devkit", "--samples 10 --boxes 40 --repeats 1"
    ),
    "loader_memory": Item(
        "memory of loaders", "itself after 2,000 samples", "--samples 2000 --workers 0 --tasks pretrain"
    ),
    "start_up": Item("`ponder --help`, `ponder doctor`", "0.5 s and 5 s", "--repeats 1"),
}

CURVES = {"scaling": "time and memory against voxels, rays, scenes and processes"}
"""Take long and compare settings: run by their own names, never by default."""
