"""Multiplane images made in tiles: how far the networks look, and that the tiles don't show."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import make_camera
from torch import Tensor, nn

from maskvolume.geometry.cameras import Camera, stack_cameras
from maskvolume.geometry.planes import disparity_planes
from maskvolume.mpi.image import MultiplaneImage
from maskvolume.mpi.model import (
    Background,
    CheckpointMeta,
    FrameMPI,
    MaskVolumeModel,
)
from maskvolume.mpi.tiles import (
    Tile,
    Tiling,
    background_in_tiles,
    frame_in_tiles,
    mpi_in_tiles,
)
from maskvolume.networks import ARCHITECTURES
from maskvolume.networks.matching import ResidualUNet
from maskvolume.runtime.devices import Precision

HALO = ARCHITECTURES["matching"].halo
assert HALO is not None
WINDOW = 4  # pixels that the networks' widest window reaches


def random_model(precision: Precision = "fp32", arch: str = "matching") -> MaskVolumeModel:
    """Weights nudged off their start, at which half of the layers are zero."""
    torch.manual_seed(0)
    model = MaskVolumeModel(CheckpointMeta("mask", arch, num_planes=4), precision)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 0:
                parameter += 0.02 * torch.randn_like(parameter)
    return model.eval()


def camera_of(size: tuple[int, int]) -> Camera:
    return make_camera(0, size=size, shift=0, turn=0).to(torch.float32)


# --- how far the networks look --------------------------------------------------------------------


def test_the_unet_reaches_as_far_as_the_halo_says() -> None:
    """By weights that let everything through: what is changed shows wherever it can."""
    unet = ResidualUNet(1, 1, (1, 1, 1)).double()
    for name, parameter in unet.named_parameters():
        nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    first, end = 160, 168  # pixels of a part on the grid
    changing = []
    for column in range(160):
        features = torch.zeros(1, 1, 4, 4, 160, dtype=torch.float64)
        features[..., column] = 1.0
        with torch.no_grad():
            shown = unet(features).repeat_interleave(2, dim=-1)
        if bool((shown[..., first:end] > 0).any()):
            changing.append(column)
    before, after = first - 2 * changing[0], 2 * (changing[-1] + 1) - end
    assert (before, after) == (64, 58)
    assert HALO.network - HALO.grid < before + WINDOW <= HALO.network
    assert HALO.frame - HALO.grid < 2 * before + WINDOW <= HALO.frame


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("part", ["mpi", "mask", "frame"])
def test_nothing_beyond_the_halo_changes_anything(part: str, axis: int) -> None:
    model = random_model()
    assert model.mask_net is not None
    size = (16, 480) if axis == -1 else (480, 16)
    inner = slice(200, 240)

    def made(sweep: Tensor) -> Tensor:
        if part == "mpi":
            return model.mpi_net(sweep)
        rgba = model.mpi_net(sweep if part == "frame" else kept)
        assert model.mask_net is not None
        return model.mask_net(sweep, still, rgba, still_rgba)

    torch.manual_seed(1)
    kept = torch.rand(1, 2, 3, 4, *size)
    still = (kept + 0.1 * torch.rand_like(kept) - 0.05).clamp(0, 1)  # the mask is neither 0 nor 1
    still_rgba = torch.rand(1, 4, 4, *size) * 0.5
    halo = HALO.frame if part == "frame" else HALO.network
    outside = kept.transpose(axis, -1).clone()
    outside[..., : inner.start - halo] = torch.rand_like(outside[..., : inner.start - halo])
    outside[..., inner.stop + halo :] = torch.rand_like(outside[..., inner.stop + halo :])
    inside = outside.clone()
    inside[..., inner.start - 16] = torch.rand_like(inside[..., 0])
    with torch.no_grad():
        results = [made(x.transpose(axis, -1)).transpose(axis, -1) for x in (kept.transpose(axis, -1), outside, inside)]
    wanted, same, other = (x[..., inner] for x in results)
    assert torch.equal(same, wanted)
    assert not torch.equal(other, wanted)
    assert not torch.equal(results[1], results[0])


# --- tiles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 128), (93, 331), (8, 8), (5, 1087)])
@pytest.mark.parametrize("counts", [(1, 1), (2, 3), (4, 1), (50, 50)])
def test_tiles_cover_the_picture_once_and_lie_on_the_grid(size: tuple[int, int], counts: tuple[int, int]) -> None:
    tiling = Tiling.of(size, *counts, HALO.grid)
    seen = torch.zeros(size)
    for tile in tiling.tiles():
        tile.of(seen).add_(1)
        assert tile.top % HALO.grid == tile.left % HALO.grid == 0
        wide = tile.grown(72, size)
        assert torch.equal(tile.within(wide).of(wide.of(seen)), tile.of(seen))
    assert bool((seen == 1).all())
    assert len(tiling.tiles()) <= counts[0] * counts[1]
    assert tiling.is_whole == (len(tiling.tiles()) == 1)


def test_a_halo_ends_where_the_picture_ends() -> None:
    assert Tile(8, 96, (16, 24)).grown(16, (50, 130)) == Tile(0, 80, (40, 50))


def test_the_mpi_of_a_tile_lies_where_it_lay() -> None:
    camera = camera_of((40, 64))
    mpi = MultiplaneImage(torch.rand(3, 4, 40, 64), camera, disparity_planes(1.0, 4.0, 3))
    tile = Tile(8, 16, (16, 32))
    whole, part = mpi.render(camera), tile.of_mpi(mpi).render(tile.of_camera(camera))
    torch.testing.assert_close(part.color, tile.of(whole.color), atol=1e-4, rtol=0)


class Scene:
    """Pictures of three cameras, smooth, as filtered photographs are."""

    def __init__(self, size: tuple[int, int], views: int = 3) -> None:
        torch.manual_seed(2)
        cameras = [make_camera(seed, size=size, shift=0.05, turn=0.01) for seed in range(views)]
        self.sources = stack_cameras(cameras).to(torch.float32)
        self.camera, self.depths = self.sources[0], disparity_planes(1.0, 8.0, 4)
        coarse = torch.rand(2, views, 3, size[0] // 6 + 2, size[1] // 6 + 2)
        coarse[1] = coarse[1] * 0.3 + coarse[0] * 0.7
        smooth = F.interpolate(coarse.flatten(0, 1), size=size, mode="bicubic", align_corners=False).clamp(0, 1)
        self.images, self.background = smooth.unflatten(0, (2, views))
        self.target = make_camera(7, size=(61, 199), shift=0.05, turn=0.01).to(torch.float32)

    def whole(self, model: MaskVolumeModel) -> tuple[Background, FrameMPI]:
        background = model.background(self.background, self.sources, self.camera, self.depths)
        return background, model.frame(self.images, self.sources, background)


# In float32 a tile has other coordinates than the whole, by 1e-4 of a pixel at most. The planes of the frame, and those
# of the background in bfloat16, are kept in float16, which rounds by 2^-12, and bfloat16 rounds otherwise at times.
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "of_planes", "of_views"), [("fp32", 1e-3, 1e-3), ("bf16", 2e-3, 1e-3)])
@pytest.mark.parametrize("tile", [(40, 104), (96, 56)])
@pytest.mark.parametrize(("arch", "size"), [("matching", (93, 331)), ("semiglobal", (96, 336))])
@torch.no_grad()
def test_tiles_do_not_show(
    precision: Precision,
    of_planes: float,
    of_views: float,
    tile: tuple[int, int],
    arch: str,
    size: tuple[int, int],
) -> None:
    scene, model = Scene(size), random_model(precision, arch)
    tiles = Tiling(size, tile).tiles()
    background, frame = scene.whole(model)
    given = scene.sources, scene.camera, scene.depths
    tiled_background = background_in_tiles(model, scene.background, *given, tiles)
    tiled = frame_in_tiles(model, scene.images, scene.sources, tiled_background, tiles, with_mask=True)
    assert tiled.mask is not None
    pairs = {
        "background": (tiled_background.mpi.rgba.float(), background.mpi.rgba),
        "mask": (tiled.mask, frame.mask),
        "mpi": (tiled.mpi.rgba.float(), frame.mpi.rgba),
        "stage one": (mpi_in_tiles(model, scene.images, *given, tiles, torch.float32).rgba, frame.dynamic.rgba),
    }
    for name, (found, wanted) in pairs.items():
        torch.testing.assert_close(found, wanted, atol=of_planes, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    views = tiled.render(scene.target), frame.render(scene.target)
    torch.testing.assert_close(views[0].color, views[1].color, atol=of_views, rtol=0)
    assert frame.mask.std() > 0.05
    assert views[0].color.std() > 0.05


@torch.no_grad()
def test_tiles_of_a_background_from_more_cameras_do_not_show() -> None:
    scene, model = Scene((96, 136), views=4), random_model(arch="semiglobal")
    given = scene.background, scene.sources, scene.camera, scene.depths
    whole = model.background(*given, 2)
    tiled = background_in_tiles(model, *given, Tiling((96, 136), (48, 72)).tiles(), 2)
    torch.testing.assert_close(tiled.mpi.rgba.float(), whole.mpi.rgba, atol=1e-3, rtol=0)
    assert torch.equal(tiled.images, scene.background[:2])
    unchecked = mpi_in_tiles(model, *given, Tiling((96, 136), (48, 72)).tiles(), torch.float32)
    assert not torch.allclose(unchecked.rgba, whole.mpi.rgba, atol=1e-2), "views that contradict others have no say"
    of_two = model.background(scene.background[:2], scene.sources[:2], scene.camera, scene.depths)
    assert torch.equal(whole.sweep, of_two.sweep)
    assert not torch.allclose(whole.mpi.rgba, of_two.mpi.rgba, atol=1e-2)


def test_costs_are_aggregated_over_pictures_on_the_grid_alone() -> None:
    scene, model = Scene((93, 128)), random_model(arch="semiglobal")
    with pytest.raises(ValueError, match="multiples of 8"):
        background_in_tiles(
            model, scene.images, scene.sources, scene.camera, scene.depths, Tiling((93, 128), (40, 64)).tiles()
        )


def test_networks_that_look_at_everything_have_no_tiles() -> None:
    model = MaskVolumeModel(CheckpointMeta("mask", "original", num_planes=8))
    scene = Scene((16, 32), views=2)
    with pytest.raises(ValueError, match="whole picture"):
        background_in_tiles(
            model, scene.images, scene.sources, scene.camera, scene.depths, Tiling((16, 32), (8, 8)).tiles()
        )
