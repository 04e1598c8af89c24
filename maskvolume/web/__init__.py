"""A moving scene as a folder that a browser plays and moves in: layers, tiles, what is still apart from what moves."""
