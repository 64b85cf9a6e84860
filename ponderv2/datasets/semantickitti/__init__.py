"""SemanticKITTI: scans of a spinning LiDAR with a class for each point."""
