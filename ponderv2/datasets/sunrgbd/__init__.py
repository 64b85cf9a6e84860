"""SUN RGB-D: RGB-D images of rooms with oriented boxes."""
