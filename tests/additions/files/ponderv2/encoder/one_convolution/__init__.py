"""An encoder of images with one convolution: a toy."""
