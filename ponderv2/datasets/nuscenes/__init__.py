"""nuScenes: drives with a LiDAR and six cameras."""
