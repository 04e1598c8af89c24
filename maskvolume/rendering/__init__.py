"""From a clip to files, for any renderer: shots, the loop, the output folder, pictures of disparity."""
