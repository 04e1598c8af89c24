"""The original's networks."""

from maskvolume.networks import ARCHITECTURES


def test_original_has_the_published_number_of_parameters() -> None:
    original = ARCHITECTURES["original"]
    count = [sum(p.numel() for p in build().parameters()) for build in (original.mpi, original.mask)]
    assert count == [576_994, 593_241]
