"""Files in and out; each format is converted once, where it is read."""
