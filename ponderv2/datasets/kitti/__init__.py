"""KITTI object detection: scans and images with boxes."""
