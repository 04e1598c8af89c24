"""The method: multiplane images of each frame and of the background, blended by a 3D mask volume."""
