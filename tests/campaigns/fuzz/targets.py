"""What is fed with damaged input: one entry per reader."""

from __future__ import annotations

from tests.campaigns.fuzz import own_readers as own
from tests.campaigns.fuzz import raw_readers as raw
from tests.campaigns.fuzz import seeds
from tests.campaigns.fuzz.target import Target, one_file, several_files

_TUM_PICTURES = tuple(f"{kind}/{index}.png" for kind in ("rgb", "depth") for index in range(2))
_SEVEN = ("frame-000000.pose.txt", "frame-000001.pose.txt", "camera-intrinsics.txt", "info.txt")
_SEVEN_PICTURES = tuple(f"frame-00000{index}.{kind}.png" for kind in ("color", "depth") for index in range(2))
_EXPORT = (
    "pose/0.txt",
    "intrinsic/intrinsic_depth.txt",
    "intrinsic/intrinsic_color.txt",
    *tuple(f"intrinsic/extrinsic_{kind}.txt" for kind in ("color", "depth")),
)
_LABELS = ("labels.tsv", "scene_vh_clean_2.0.010000.segs.json", "scene.aggregation.json", "scene.txt")
_PLUS = (
    "metadata/semantic_benchmark/top100.txt", "metadata/semantic_benchmark/map_benchmark.csv",
    "splits/nvs_sem_train.txt", "data/aa00/scans/segments_anno.json",
)  # fmt: skip

TARGETS: dict[str, Target] = {
    "sens": Target(seeds.sens, one_file("room.sens", raw.sens)),
    "ply": Target(seeds.ply, one_file("cloud.ply", raw.cloud), "text"),
    "ply mesh": Target(seeds.ply, one_file("mesh.ply", raw.mesh)),
    "pcd": Target(seeds.pcd, one_file("cloud.pcd", raw.cloud), "text"),
    "npy": Target(seeds.npys, one_file("cloud.npy", raw.cloud), "text"),
    "points text": Target(seeds.s3dis, one_file("cloud.txt", raw.cloud), "text"),
    "depth png": Target(seeds.depth_pngs, raw.depth_picture, "png"),
    "colour jpeg": Target(seeds.color_pictures, raw.color_picture, "png"),
    "tum": Target(
        seeds.tum,
        several_files(("rgb.txt", "depth.txt", "groundtruth.txt"), raw.layout("tum"), _TUM_PICTURES),
        "text",
    ),
    "redwood": Target(
        seeds.redwood,
        several_files(
            ("trajectory.log", "intrinsic.json"), raw.layout("redwood"), ("color/0.png", "depth/0.png")
        ),
        "text",
    ),
    "7scenes, bundlefusion": Target(
        seeds.seven_scenes, several_files(_SEVEN, raw.seven_scenes, _SEVEN_PICTURES), "text"
    ),
    "replica": Target(
        seeds.replica,
        several_files(
            ("traj.txt", "cam_params.json"),
            raw.layout("replica"),
            ("results/frame000000.jpg", "results/depth000000.png"),
        ),
        "text",
    ),
    "scannet export": Target(
        seeds.scannet_export,
        several_files(_EXPORT, raw.layout("scannet"), ("color/0.jpg", "depth/0.png")),
        "text",
    ),
    "transforms.json": Target(
        seeds.transforms,
        several_files(("transforms.json",), raw.layout("nerfstudio"), ("images/0.png", "depth/0.png")),
        "text",
    ),
    "intrinsics": Target(seeds.intrinsics, raw.intrinsics, "text"),
    "s3dis text": Target(seeds.s3dis, raw.s3dis, "text"),
    "obj": Target(seeds.obj, one_file("area.obj", raw.obj), "text"),
    "2d-3d-s view": Target(
        seeds.view_lens, several_files(("camera_intrinsics_1.txt", "camera_pose_1_2.txt"), raw.view), "text"
    ),
    "scannet labels": Target(seeds.scannet_labels, several_files(_LABELS, raw.scannet_labels), "text"),
    "scannet++": Target(seeds.scannetpp, several_files(_PLUS, raw.scannetpp), "text"),
    "scannet label zip": Target(seeds.label_zip, one_file("scene_2d-label-filt.zip", raw.label_zip), "zip"),
    "structured3d zip": Target(
        seeds.structured3d, one_file("Structured3D_perspective_full_00.zip", raw.structured3d), "zip"
    ),
    "nuscenes tables": Target(
        seeds.nuscenes,
        several_files(tuple(f"v1.0-mini/{name}.json" for name in seeds.NUSCENES_TABLES), raw.nuscenes),
        "text",
    ),
    "nuscenes infos": Target(
        seeds.nuscenes_infos, several_files(("nuscenes_infos_train.pkl",), raw.nuscenes), "text"
    ),
    "drive.json": Target(seeds.vehicle, several_files(("drive.json", "top.bin"), raw.vehicle), "text"),
    "kitti": Target(
        seeds.kitti,
        several_files(
            (
                "training/velodyne/000000.bin",
                "training/calib/000000.txt",
                "training/label_2/000000.txt",
            ),
            raw.kitti,
            ("training/image_2/000000.png",),
        ),
        "text",
    ),
    "scannet detection arrays": Target(
        seeds.detection_arrays, several_files(seeds.DETECTION_ARRAYS, raw.detection_arrays)
    ),
    "mat": Target(seeds.mat, one_file("SUNRGBDMeta.mat", raw.mat)),
    "sunrgbd text": Target(
        seeds.sunrgbd_text, several_files(("calib/000001.txt", "label/000001.txt"), raw.sunrgbd_text), "text"
    ),
    "semantickitti": Target(
        seeds.semantickitti,
        several_files(seeds.SEMANTICKITTI, raw.semantickitti, ("sequences/00/velodyne/000000.bin",)),
        "text",
    ),
    "dgp": Target(seeds.dgp, several_files(seeds.DGP, raw.vehicle), "text"),
    "lidar scan": Target(seeds.scans, one_file("scan.pcd.bin", raw.scan)),
    "pickle": Target(seeds.pickled, one_file("values.pth", own.pickled), "zip"),
    "ponderv2 scene": Target(seeds.pickled, own.pickled_scene, "zip"),
    "ponderv2 lists": Target(
        seeds.frame_lists, several_files(("skip.lst", "train.json"), own.frame_lists), "text"
    ),
    "scene store": Target(seeds.dataset_yaml, own.store, "text"),
    "scene arrays": Target(seeds.npys, own.scene_arrays, "text"),
    "cameras.npz": Target(seeds.cameras, own.cameras, "zip"),
    "preset": Target(seeds.presets, one_file("tiny.yaml", own.preset), "text"),
    "set option": Target(seeds.overrides, own.override, "text"),
    "checkpoint": Target(seeds.checkpoints, one_file("last.pth", own.checkpoint), "zip"),
    "safetensors": Target(seeds.safetensors, one_file("last.safetensors", own.checkpoint), "text"),
    "camera path": Target(seeds.camera_path, one_file("path.json", own.camera_path), "text"),
    "embeddings": Target(lambda: seeds.npys() + seeds.safetensors(), own.embeddings, "text"),
}
