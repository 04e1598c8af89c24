"""Endless random worlds, rendered by ray casting, to train on without any data file."""

from maskvolume.synthetic.options import SyntheticSample, WorldOptions
from maskvolume.synthetic.sampling import sample_worlds
from maskvolume.synthetic.static import StaticWorld

__all__ = ["StaticWorld", "SyntheticSample", "WorldOptions", "sample_worlds"]
