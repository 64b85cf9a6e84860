"""Objects as points of the bird's-eye view (CenterPoint)."""
