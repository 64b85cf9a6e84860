"""Readers of drives with LiDAR and cameras."""
