"""Features of images averaged over the views: a toy lift."""
