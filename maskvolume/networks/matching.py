"""Networks that start from matching evidence and learn the residual.

A plane sweep shows a surface where the views agree. The MPI network turns the agreement of the views, averaged
over windows, into a distribution over planes along each ray of the reference; a light 3D U-Net at half resolution
adds a learned residual to it and weighs the views' colours. With a residual of zero it is classical multi-view
stereo in MPI form; everything learned goes on top. The mask network starts from the difference between frame and
background in the same way. Neither has norm layers: the result at a voxel does not depend on the picture's size.

All evidence is symmetric in the views and knows their number only through means, so any V >= 2 works.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskvolume.networks.views import double_size, pad_to_multiple, valid_views

COST_CAP = 0.6  # a larger difference (summed over colours) says no more than "different"
# Where fewer than two views see a point, which tells nothing: more than a match costs, less than a mismatch. At the
# picture's sides only near planes are seen by several views; were others dearer, what is there would seem near.
COST_UNSURE = 0.35
WINDOW, WINDOW_FINE = 9, 3  # pixels of the averaging windows
TEMPERATURE = 0.03  # of the softmax over planes when training starts; cost units. Sharper ones let through no gradient
COST_GAIN = 10.0  # of the costs where the network reads them, when training starts: they are small numbers
LOGIT_CAP = 60.0  # keeps exp() and its cumulative sums within float32
VIEW_LOGIT_CAP = 15.0
MULTIPLE = (4, 8, 8)  # of D, H, W: half resolution and two more halvings
# Planes whose full-resolution evidence exists at once: few stay in the cache of a processor, many keep a GPU busy.
PLANE_CHUNK_CPU, PLANE_CHUNK = 2, 16


class ResBlock(nn.Module):
    """Two 3x3x3 convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(x + self.conv2(F.relu_(self.conv1(x))))


class ResidualUNet(nn.Module):
    """3D U-Net at half the picture's resolution; the last layer starts at zero."""

    def __init__(self, c_in: int, c_out: int, channels: tuple[int, int, int]) -> None:
        super().__init__()
        c0, c1, c2 = channels
        self.stem = nn.Conv3d(c_in, c0, 3, padding=1)
        self.down1 = nn.Conv3d(c0, c1, 3, stride=2, padding=1)
        self.block1 = ResBlock(c1)
        self.down2 = nn.Conv3d(c1, c2, 3, stride=2, padding=1)
        self.block2 = nn.Sequential(ResBlock(c2), ResBlock(c2))
        self.up1 = nn.Conv3d(c2, c1, 1)
        self.block1_up = ResBlock(c1)
        self.up0 = nn.Conv3d(c1, c0, 1)
        self.block0_up = ResBlock(c0)
        self.head = nn.Conv3d(c0, c_out, 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, D, H, W] -> [B, out, D, H, W]``; D, H, W are multiples of 4."""
        x0 = F.relu_(self.stem(x))
        x1 = self.block1(F.relu_(self.down1(x0)))
        x2 = self.block2(F.relu_(self.down2(x1)))
        x1 = self.block1_up(x1 + double_size(self.up1(x2)))
        x0 = self.block0_up(x0 + double_size(self.up0(x1)))
        return self.head(x0)


class MatchingMPINet(nn.Module):
    """Plane sweep volume of any number of views to premultiplied RGBA planes."""

    # 2x2 pixels of luminance, luminance difference and both costs, then half-resolution colour means.
    FEATURES = 4 * 4 + 7
    COSTS = slice(8, 16)  # of these

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        self.unet = ResidualUNet(self.FEATURES, 4 * 2, channels)
        with torch.no_grad():
            self.unet.stem.weight[:, self.COSTS] *= COST_GAIN
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())

    def forward(self, sweep: Tensor, *around: Tensor) -> Tensor:
        """``sweep [B, V, 3, D, H, W] -> rgba [B, D, 4, H, W]``, premultiplied; -1 in ``sweep`` is no data.

        Args:
            sweep: the plane sweep volume.
            around: what the network needs of a larger picture, if the volume is a part of one.
        """
        loops = None if torch.is_grad_enabled() else compiled_loops(sweep)
        if loops is None:
            return self.with_logits(sweep, *around)[0]
        padded, _ = pad_views(sweep)
        cost, features, *more = self.evidence(padded, *around)
        said = self.unet(_channels_last(features))
        trust = self.trust()
        numbers = LOGIT_CAP, VIEW_LOGIT_CAP, 0.0 if trust is None else float(trust)
        return loops.make_planes(said, self.penalty(cost, *more), padded, *numbers, sweep.shape[-3:])

    def evidence(self, sweep: Tensor, *around: Tensor) -> tuple[Tensor, ...]:
        """The costs of planes ``[B, 1, D, H, W]``, what the U-Net reads, and what else ``penalty`` takes."""
        return matching_evidence(sweep, self.FEATURES)

    def penalty(self, cost: Tensor, *_: Tensor) -> Tensor:
        """What is taken off the logits of planes, ``[B, 1, D, H, W]``, from what ``evidence`` found."""
        return cost.float() / self.log_temperature.exp()

    def trust(self) -> Tensor | None:
        """How fast a view's colour loses weight as it differs from that of the view next to it; None: it doesn't."""
        return None

    def with_logits(self, sweep: Tensor, *around: Tensor) -> tuple[Tensor, Tensor]:
        """What ``forward`` returns, and the logits ``[B, D, H, W]`` of the planes along each ray of the reference.

        The opacity along a ray is made by stick breaking: with w the softmax over planes of the logits,
        alpha_d = w_d / (sum of w over d and all farther planes), so the weights that compositing gives the
        planes in the reference view are w itself, and the farthest plane is opaque.
        """
        padded, crop = pad_views(sweep)
        with torch.no_grad():
            cost, features, *more = self.evidence(padded, *around)
        residual, view_logit = _to_full_resolution(self.unet(_channels_last(features)).float()).unbind(1)
        view_logit = view_logit.clamp(-VIEW_LOGIT_CAP, VIEW_LOGIT_CAP)
        del features
        logits = residual[:, None] - self.penalty(cost, *more)
        weights = (logits - logits.amax(dim=2, keepdim=True)).clamp_min(-LOGIT_CAP).exp()
        alpha = weights / weights.cumsum(dim=2)
        del weights
        trust = self.trust()
        planes = [
            _colored_planes(*chunk, trust)
            for chunk in zip(
                padded.split(plane_chunk(sweep.device), dim=3),
                view_logit[:, None].split(plane_chunk(sweep.device), dim=2),
                alpha.split(plane_chunk(sweep.device), dim=2),
                strict=True,
            )
        ]
        d, h, w = crop[1:]
        return torch.cat(planes, dim=1)[:, d, :, h, w], logits[:, 0, d, h, w]


class MatchingMaskNet(nn.Module):
    """Frame and background to the volume of what moves.

    The residual of the U-Net goes on top of what differs; what lies behind an opaque mover is the background's in
    any case. There the frame's MPI has no more than smears of the mover, for no reference ray gets that far.
    """

    # 2x2 pixels of: smallest and mean difference, its window average, both opacities; then cost, view count, the
    # difference over a wide window, that of the reference alone, that along the ray, and how much of the ray is left.
    FEATURES = 5 * 4 + 6
    SLOPE, THRESHOLD = 30.0, 0.1  # of the prior: sigmoid(slope * (difference - threshold))
    HIDDEN = 0.05  # where less of a ray than this is left, it begins to be the background's

    def __init__(self, channels: tuple[int, int, int] = (8, 16, 32)) -> None:
        super().__init__()
        self.unet = ResidualUNet(self.FEATURES, 4, channels)
        self.slope = nn.Parameter(torch.tensor(self.SLOPE))
        self.threshold = nn.Parameter(torch.tensor(self.THRESHOLD))
        self.log_hidden = nn.Parameter(torch.tensor(self.HIDDEN).log())

    def forward(self, sweep: Tensor, background_sweep: Tensor, dynamic_rgba: Tensor, background_rgba: Tensor) -> Tensor:
        """Sweeps ``[B, V, 3, D, H, W]``, MPIs ``[B, D, 4, H, W] -> mask [B, 1, D, H, W]`` in 0..1.

        A point of a moving surface differs from the background in every view that sees it; a point that
        stands still differs only in views where something moving hides it. So the prior is the smallest
        difference over the views, there or where the ray through the point ends: before a mover is nothing else.
        """
        opacities = torch.stack([dynamic_rgba[:, :, 3], background_rgba[:, :, 3]], dim=1).detach().float()
        opacities, _ = pad_to_multiple(opacities, MULTIPLE)
        (padded, crop), (still, _) = pad_views(sweep), pad_views(background_sweep)
        with torch.no_grad():
            features, difference = mask_evidence(padded, still, opacities)
        said = self.unet(_channels_last(features))
        del features
        loops = None if torch.is_grad_enabled() else compiled_loops(sweep)
        if loops is not None:
            numbers = float(self.slope), float(self.threshold), float(self.log_hidden.exp())
            return loops.make_mask(said, difference, opacities[:, 0], *numbers, sweep.shape[-3:])
        residual = _to_full_resolution(said.float())
        prior = self.slope * (difference - self.threshold)
        mask = torch.sigmoid(residual + prior)
        left = remaining(mask[:, 0] * opacities[:, 0])[:, None]
        return (mask * (left / self.log_hidden.exp()).clamp_max(1))[crop]


def remaining(opacity: Tensor) -> Tensor:
    """How much of each reference ray the planes in front of a plane leave, from opacities ``[B, D, H, W]``."""
    through = (1 - opacity).flip(1).cumprod(dim=1).flip(1)
    return torch.cat([through[:, 1:], torch.ones_like(through[:, :1])], dim=1)


def pad_views(sweep: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
    """``pad_to_multiple`` of ``[B, V, 3, D, H, W]``; no copy where nothing is to be padded."""
    padded, crop = pad_to_multiple(sweep.flatten(0, 1), MULTIPLE)
    return padded.unflatten(0, sweep.shape[:2]), crop


def plane_chunk(device: torch.device) -> int:
    """How many planes' evidence at full resolution to make at once."""
    return PLANE_CHUNK_CPU if device.type == "cpu" else PLANE_CHUNK


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=_memory_format(x.device))


def _memory_format(device: torch.device) -> torch.memory_format:
    """How convolutions read volumes fastest."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last_3d


def _to_full_resolution(x: Tensor) -> Tensor:
    """``[B, 4 * C, D, H / 2, W / 2] -> [B, C, D, H, W]``."""
    return F.pixel_shuffle(x.transpose(1, 2), 2).transpose(1, 2)


def _unshuffle(x: Tensor) -> Tensor:
    """``[B, C, D, H, W] -> [B, 4 * C, D, H / 2, W / 2]``."""
    return F.pixel_unshuffle(x.transpose(1, 2), 2).transpose(1, 2)


def halve(x: Tensor) -> Tensor:
    """Mean of 2x2 pixels: ``[B, C, D, H, W] -> [B, C, D, H / 2, W / 2]``."""
    half = F.avg_pool2d(x.flatten(1, 2), 2)
    return half.reshape(*x.shape[:3], *half.shape[-2:])


def box_mean(x: Tensor, window: int) -> Tensor:
    """Mean over a window in the picture plane, ``[B, D, H, W]``; only the picture's own pixels count."""
    half = window // 2
    rows = F.avg_pool2d(x, (window, 1), stride=1, padding=(half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, window), stride=1, padding=(0, half), count_include_pad=False)


def _colored_planes(sweep: Tensor, view_logit: Tensor, alpha: Tensor, trust: Tensor | None) -> Tensor:
    """Premultiplied planes ``[B, D, 4, H, W]``: the views that have data, the first against the others.

    A softmax over [view_logit, 0, 0, ...]: the reference is weighed against each other view. With ``trust`` a view
    that no other agrees with, because something hides the point from it, has less weight.
    """
    weights = valid_views(sweep).to(alpha.dtype)
    if trust is not None:
        weights = weights * (-trust * _disagreement(sweep)).exp()
    first = weights[:, 0] * view_logit.exp()
    color = first * sweep[:, 0]
    total = first
    for view in range(1, sweep.shape[1]):
        color = color + weights[:, view] * sweep[:, view]
        total = total + weights[:, view]
    seen = alpha * (total > 0)
    return torch.cat([color * (seen / total.clamp_min(1e-8)), seen], dim=1).transpose(1, 2)


def _disagreement(sweep: Tensor) -> Tensor:
    """How much each view differs from the one that is most like it, ``[B, V, 1, D, H, W]``, at most ``COST_CAP``."""
    valid, views = valid_views(sweep), sweep.shape[1]
    least = [torch.full_like(sweep[:, 0, :1], COST_CAP, dtype=torch.float32) for _ in range(views)]
    for i in range(views):
        for j in range(i):
            both = valid[:, i] & valid[:, j]
            difference = (sweep[:, i].float() - sweep[:, j].float()).abs().sum(dim=1, keepdim=True)
            difference = torch.where(both, difference.clamp_max(COST_CAP), COST_CAP)
            least[i], least[j] = torch.minimum(least[i], difference), torch.minimum(least[j], difference)
    return torch.stack(least, dim=1)


def _agreement(sweep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean colour, mean difference and number of views: ``[B, 3, D, H, W]`` twice, ``[B, 1, D, H, W]``.

    The difference is twice the mean absolute deviation, |v0 - v1| for two views.
    """
    valid = valid_views(sweep)
    count = valid.sum(dim=1).to(sweep.dtype)
    divisor = count.clamp_min(1).reciprocal_()
    mean = torch.zeros_like(sweep[:, 0])
    for view, seen in zip(sweep.unbind(1), valid.unbind(1), strict=True):
        mean.addcmul_(view, seen.to(view.dtype))
    mean *= divisor
    difference = torch.zeros_like(mean)
    for view, seen in zip(sweep.unbind(1), valid.unbind(1), strict=True):
        difference.addcmul_((view - mean).abs_(), seen.to(view.dtype))
    difference *= divisor * 2
    return mean, difference, count


def matching_evidence(sweep: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Cost of each plane at each pixel, ``[B, 1, D, H, W]``, and what the U-Net reads; see ``matching_features``.

    On the processor by compiled loops, where they can be had; these are close to the plain functions, not the same.

    Args:
        sweep: ``[B, V, 3, D, H, W]``.
        channels: of the features; those after the ``MatchingMPINet.FEATURES`` first are left to the caller.
    """
    loops = compiled_loops(sweep)
    if loops is not None:
        return loops.matching_evidence(sweep, channels, COST_CAP, COST_UNSURE)
    cost, cost_fine = matching_costs(sweep)
    features = matching_features(sweep, cost, cost_fine)
    if channels > MatchingMPINet.FEATURES:
        features = torch.cat([features, torch.zeros_like(features[:, : channels - MatchingMPINet.FEATURES])], dim=1)
    return cost, features


def mask_evidence(sweep: Tensor, background: Tensor, opacities: Tensor) -> tuple[Tensor, Tensor]:
    """What ``mask_features`` returns; on the processor by compiled loops, where they can be had."""
    loops = compiled_loops(sweep)
    if loops is not None:
        return loops.mask_evidence(sweep, background, opacities, MatchingMaskNet.FEATURES, COST_CAP)
    return mask_features(sweep, background, opacities)


def compiled_loops(sweep: Tensor) -> ModuleType | None:
    """The compiled loops, if there are some for these sweeps and for what the U-Net computes in."""
    module = loops_for_floats(sweep)
    fits = module is not None and module.TYPES.get(sweep.dtype) == _compute_dtype(sweep)
    return module if fits else None


def loops_for_floats(x: Tensor) -> ModuleType | None:
    """The compiled loops, if there are some where ``x`` is, for what is not read by the U-Net."""
    return None if x.device.type != "cpu" or torch.compiler.is_compiling() else _compiled_loops()


@cache
def _compiled_loops() -> ModuleType | None:
    try:
        from maskvolume.ops.cpu import matching as compiled_matching
    except (ImportError, RuntimeError):  # no Numba, or no place for what it compiles; the backends say so
        return None
    return compiled_matching


def matching_costs(sweep: Tensor) -> tuple[Tensor, Tensor]:
    """Cost of each plane at each pixel, ``[B, 1, D, H, W]``: over the wide window and the fine one."""
    wide, fine = [], []
    for chunk in sweep.split(plane_chunk(sweep.device), dim=3):
        _, difference, count = _agreement(chunk.float())
        cost = difference.sum(dim=1).clamp_max(COST_CAP)
        cost = torch.where(count[:, 0] >= 2, cost, COST_UNSURE)
        wide.append(box_mean(cost, WINDOW))
        fine.append(box_mean(cost, WINDOW_FINE))
    return torch.cat(wide, dim=1)[:, None], torch.cat(fine, dim=1)[:, None]


def matching_features(sweep: Tensor, cost: Tensor, cost_fine: Tensor) -> Tensor:
    """What the MPI network's U-Net reads, ``[B, FEATURES, D, H / 2, W / 2]``; see ``MatchingMPINet``."""
    views = sweep.shape[1]
    best, best_fine = cost.amin(dim=2, keepdim=True), cost_fine.amin(dim=2, keepdim=True)
    parts = []
    at_once = plane_chunk(sweep.device)
    for index, chunk in enumerate(sweep.split(at_once, dim=3)):
        planes = slice(index * at_once, index * at_once + chunk.shape[3])
        mean, difference, count = _agreement(chunk.float())
        full = torch.cat(
            [
                mean.mean(dim=1, keepdim=True),
                difference.mean(dim=1, keepdim=True),
                cost[:, :, planes] - best,
                cost_fine[:, :, planes] - best_fine,
            ],
            dim=1,
        )
        half = halve(torch.cat([mean, difference, count / views], dim=1))
        parts.append(torch.cat([_unshuffle(full), half], dim=1).to(_compute_dtype(sweep)))
    return torch.cat(parts, dim=2)


def mask_features(sweep: Tensor, background: Tensor, opacities: Tensor) -> tuple[Tensor, Tensor]:
    """What the mask network's U-Net reads, and the prior's evidence ``[B, 1, D, H, W]``.

    Args:
        sweep: of the frame, ``[B, V, 3, D, H, W]``.
        background: of the background, the same.
        opacities: of both MPIs, ``[B, 2, D, H, W]``; in front of their planes the ray is as they leave it.
    """
    views = sweep.shape[1]
    left = remaining(opacities[:, 0])
    along = torch.zeros_like(left[:, :1])
    evidence = torch.empty_like(left)
    batch, planes, h, w = left.shape
    features = torch.empty(
        batch, MatchingMaskNet.FEATURES, planes, h // 2, w // 2, dtype=_compute_dtype(sweep), device=sweep.device,
        memory_format=_memory_format(sweep.device),
    )  # fmt: skip
    for start in range(0, planes, plane_chunk(sweep.device)):
        chunk = slice(start, start + plane_chunk(sweep.device))
        frame, still, opacity = sweep[:, :, :, chunk], background[:, :, :, chunk], opacities[:, :, chunk]
        valid = valid_views(frame)[:, :, 0]
        count = valid.sum(dim=1)
        change = (frame.float() - still.float()).abs().sum(dim=2).clamp_max(COST_CAP) * valid
        smallest = change.masked_fill(~valid, COST_CAP).amin(dim=1) * (count > 0)
        mean = change.sum(dim=1) / count.clamp_min(1)
        window = box_mean(smallest, WINDOW_FINE)
        evidence[:, chunk] = window
        along += (window * opacity[:, 0] * left[:, chunk]).sum(dim=1, keepdim=True)
        _, difference, _ = _agreement(frame.float())
        full = torch.cat([torch.stack([smallest, mean, window], dim=1), opacity], dim=1)
        half = torch.stack([difference.mean(dim=1), count / views, box_mean(smallest, WINDOW), change[:, 0]], dim=1)
        features[:, :-2, chunk] = torch.cat([_unshuffle(full), halve(half)], dim=1)
        features[:, -1:, chunk] = halve(left[:, None, chunk])
    features[:, -2:-1] = halve(along[:, None])
    return features, torch.maximum(evidence, along)[:, None]


def _compute_dtype(x: Tensor) -> torch.dtype:
    """The type that convolutions run in: autocast's where it is on."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
