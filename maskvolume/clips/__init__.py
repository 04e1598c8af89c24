"""Recorded clips: the layouts of their folders, backgrounds and mattes."""
