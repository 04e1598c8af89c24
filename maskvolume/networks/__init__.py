"""The networks, by architecture name. Every checkpoint records the name.

An architecture is a pair of modules: an MPI network and a mask network. ``registry`` describes their interface, their
requirements and their memory. Both accept any H, W and D: they pad their inputs and crop their outputs.
"""

from maskvolume.networks.matching import MatchingMaskNet, MatchingMPINet
from maskvolume.networks.original import OriginalMaskNet, OriginalMPINet
from maskvolume.networks.registry import (
    ARCHITECTURES,
    Architecture,
    Halo,
    NetworkWork,
    PictureContext,
    Work,
)
from maskvolume.networks.semiglobal import SemiglobalMPINet

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Halo",
    "MatchingMPINet",
    "MatchingMaskNet",
    "NetworkWork",
    "OriginalMPINet",
    "OriginalMaskNet",
    "PictureContext",
    "SemiglobalMPINet",
    "Work",
]
