"""Generated streets, written as nuScenes."""
