"""Cameras, planes, homographies, lenses, paths and poses: pure functions and frozen types that touch no file."""
