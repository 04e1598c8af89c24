"""Exports a moving scene to a folder for the browser player: layers cut into static and moving tiles."""
