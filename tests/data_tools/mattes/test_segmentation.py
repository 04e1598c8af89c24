"""Things found by a network of segmentation."""

from __future__ import annotations

import pytest
import torch

from data_tools.mattes.segmentation import Segmenter


def test_things_found_by_maskrcnn():
    segmenter = Segmenter(torch.nn.Identity(), None, (1, 3), torch.device("cpu"))
    masks = torch.zeros(4, 1, 6, 8)
    for number in range(4):
        masks[number, 0, number] = 0.9
    found = {"labels": torch.tensor([1, 2, 3, 1]), "scores": torch.tensor([0.9, 0.9, 0.6, 0.2]), "masks": masks}
    sureness = segmenter._of_instances(found, (6, 8))
    assert [row.max().item() for row in sureness] == pytest.approx([0.9, 0, 0.9, 0, 0, 0])
    nothing = {"labels": torch.zeros(0), "scores": torch.zeros(0), "masks": torch.zeros(0, 1, 6, 8)}
    assert segmenter._of_instances(nothing, (6, 8)).shape == (6, 8)
