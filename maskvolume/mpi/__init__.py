"""The method: multiplane images of every frame and of the background, blended by a 3D mask volume."""
