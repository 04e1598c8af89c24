"""File formats, one module each; a format is converted to OpenCV cameras where it is read."""
