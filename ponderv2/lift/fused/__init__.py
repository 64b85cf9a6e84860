"""Features of points and of images, summed in one volume."""
