"""Features of images by a frozen 2D network: computed once, reduced by a PCA, stored beside the scenes."""
