"""Endless random worlds, rendered by ray casting, for training without data files."""

from maskvolume.data.synthetic.options import SyntheticSample, WorldOptions
from maskvolume.data.synthetic.sampling import sample_worlds
from maskvolume.data.synthetic.source import SyntheticSource
from maskvolume.data.synthetic.static import StaticWorld

__all__ = ["StaticWorld", "SyntheticSample", "SyntheticSource", "WorldOptions", "sample_worlds"]
