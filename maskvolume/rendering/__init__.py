"""Rendering a clip to files with any renderer: shots, the render loop, the output folder, disparity pictures."""
