"""3D object detection: boxes around objects, their classes and velocities."""
