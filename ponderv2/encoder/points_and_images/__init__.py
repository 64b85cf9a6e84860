"""An encoder of points beside an encoder of images."""
