"""A generator of streets: roads, buildings, plants, traffic; a LiDAR and six cameras; tables of nuScenes."""
