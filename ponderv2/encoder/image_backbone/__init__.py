"""An encoder of images: a 2D network of timm, its stages joined by a feature pyramid."""
