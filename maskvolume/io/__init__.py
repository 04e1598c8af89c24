"""File formats, one module each; readers convert every format to OpenCV cameras."""
