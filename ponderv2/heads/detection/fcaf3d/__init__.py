"""FCAF3D, the fully sparse detector of rooms without anchors (arXiv 2112.00322)."""
