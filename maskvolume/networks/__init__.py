"""The networks, by architecture name. The name is recorded in every checkpoint.

An architecture is a pair of modules, an MPI network and a mask network; ``registry`` says what each of them is, needs
and costs. Both take any H, W and D: they pad inside and crop after.
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
