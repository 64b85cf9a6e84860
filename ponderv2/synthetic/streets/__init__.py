"""A generator of streets: roads, buildings, plants and traffic, with a LiDAR and six cameras, as nuScenes tables."""
