"""Frechet video distance as a ``torchmetrics.Metric``: videos in, batch by batch and rank by rank, one number out.

Features are gathered over batches and ranks, or their sums added, in float64. No score is averaged over ranks, and a
rank without videos takes part like any other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from flexivid.metrics.extractors.extractor import Extractor, build_extractor
from flexivid.metrics.frechet import Moments, frechet_distance, frechet_from_moments
from flexivid.metrics.scores import Scores, score

SIDES = {True: "real", False: "generated"}
FAR_OUTSIDE = 1.5  # no video in [-1, 1] reaches this, not even after a resize that overshoots


class FrechetVideoDistance(Metric):
    """FVD between real and generated videos.

    Args:
        extractor: Gives features; or the name of one, see ``extractor.build_extractor``. Only ``i3d`` gives FVD proper.
        keep_features: Keep the features (n, d) of every video: the distance is exact for any n, and :meth:`scores`
            works. False: keep their sums (d, d) alone, in constant memory.
        **options: Those of every ``torchmetrics.Metric``, e.g. ``process_group``.

    Example:
        >>> fvd = FrechetVideoDistance(build_extractor("motion"))
        >>> features = torch.randn(600, fvd.extractor.num_features, generator=torch.Generator().manual_seed(0))
        >>> fvd.update_features(features, real=True)
        >>> fvd.update_features(features + 0.1, real=False)
        >>> round(fvd.compute().item() / fvd.extractor.num_features, 4)
        0.01
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    num_frames: Tensor

    def __init__(self, extractor: Extractor | str = "i3d", *, keep_features: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.extractor = build_extractor(extractor) if isinstance(extractor, str) else extractor
        self.keep_features = keep_features
        self.add_state("num_frames", torch.tensor(0), dist_reduce_fx=_agreed)  # 0: none seen yet
        nothing = Moments.of(torch.empty(0, self.extractor.num_features))
        for side in SIDES.values():
            if keep_features:
                self.add_state(f"{side}_features", [], dist_reduce_fx="cat")
                continue
            for name, sums in nothing._asdict().items():
                self.add_state(f"{side}_{name}", sums, dist_reduce_fx="sum")
        self._start_lists()

    def update(self, videos: Tensor, real: bool) -> None:
        """Add videos.

        Args:
            videos: (b, 3, t, h, w), float in [-1, 1] or uint8. Generated values outside are clipped, as they are when
                written to a file. b may be 0.
            real: Whether they are real or generated.

        Raises:
            ValueError: If a video cannot be used; nothing of the batch is added then.
        """
        self._check(videos, real)
        if len(videos) == 0:
            return
        pixels = videos.float() / 127.5 - 1 if videos.dtype == torch.uint8 else videos.clamp(-1, 1)
        self._add(self.extractor(pixels), real)
        self.num_frames = torch.full_like(self.num_frames, videos.shape[2])

    def update_features(self, features: Tensor, real: bool) -> None:
        """Add videos by their features, (b, d), e.g. those of a reference set on disk."""
        self._update_count, self._computed = self._update_count + 1, None  # as torchmetrics does around ``update``
        self._add(features, real)

    def compute(self) -> Tensor:
        """The distance of all videos of all ranks, float64; the same on every rank.

        Raises:
            ValueError: If there are fewer than 2 videos of either kind.
        """
        if self.keep_features:
            value = frechet_distance(self._features("generated"), self._features("real"))
        else:
            value = frechet_from_moments(self._moments("generated"), self._moments("real"))
        return torch.tensor(value, dtype=torch.float64, device=self.device)

    def scores(self, *, seed: int = 0, resamples: int = 100) -> Scores:
        """The distance with its interval and all other scores, of all ranks; needs ``keep_features``."""
        if not self.keep_features:
            raise ValueError("got keep_features=False; expected the features for scores; set keep_features=True")
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return score(self._features("generated"), self._features("real"), seed=seed, resamples=resamples)

    def reset(self) -> None:
        """Forget all videos."""
        super().reset()
        self._start_lists()

    def _start_lists(self) -> None:
        """A rank without videos must gather as many columns as the others."""
        if self.keep_features:
            for side in SIDES.values():
                empty = torch.empty(0, self.extractor.num_features, dtype=torch.float64, device=self.device)
                getattr(self, f"{side}_features").append(empty)

    def _check(self, videos: Tensor, real: bool) -> None:
        shape, seen = tuple(videos.shape), int(self.num_frames)
        if len(shape) != 5 or shape[1] != 3 or not (videos.dtype == torch.uint8 or videos.is_floating_point()):
            raise ValueError(
                f"got videos {shape} of {videos.dtype}; expected (b, 3, t, h, w), float in [-1, 1] or uint8; permute or"
                " convert them"
            )
        if seen not in (0, shape[2]):
            raise ValueError(
                f"got {SIDES[real]} videos of {shape[2]} frames; expected {seen}, as before; cut all to one length"
            )
        if len(videos) and videos.is_floating_point():
            _check_values(videos, real)

    def _add(self, features: Tensor, real: bool) -> None:
        side, d = SIDES[real], self.extractor.num_features
        if features.ndim != 2 or features.shape[1] != d:
            raise ValueError(f"got features {tuple(features.shape)}; expected (b, {d}); use the metric's extractor")
        if not features.isfinite().all():
            raise ValueError(f"got {side} features with NaN or infinity; expected finite ones; look at these videos")
        features = features.detach().to(self.device, torch.float64)
        if self.keep_features:
            getattr(self, f"{side}_features").append(features)
            return
        for name, sums in Moments.of(features)._asdict().items():
            setattr(self, f"{side}_{name}", getattr(self, f"{side}_{name}") + sums)

    def _features(self, side: str) -> Tensor:
        features = getattr(self, f"{side}_features")  # a list before, a tensor after a gathering
        return features if isinstance(features, Tensor) else torch.cat(features)

    def _moments(self, side: str) -> Moments:
        return Moments(*(getattr(self, f"{side}_{name}") for name in Moments._fields))


def _check_values(videos: Tensor, real: bool) -> None:
    pixels = videos.flatten(1)
    largest = torch.maximum(-pixels.amin(1), pixels.amax(1))  # NaN where a value is
    bad = (~largest.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"got {SIDES[real]} videos with NaN or infinity, {len(bad)} of {len(videos)}, the first at {bad[0]};"
            " expected finite values; look at the model or file they are from"
        )
    if real and largest.max() > FAR_OUTSIDE:
        raise ValueError(
            f"got real videos with values up to {largest.max():g}; expected [-1, 1]; pass uint8, or divide 8-bit"
            " values by 127.5 and subtract 1"
        )


def _agreed(counts: Tensor) -> Tensor:
    """The one number of frames that ranks with videos have seen."""
    seen = counts[counts > 0].unique()
    if len(seen) > 1:
        raise ValueError(
            f"got videos of {' and '.join(map(str, seen.tolist()))} frames on different ranks; expected one length;"
            " cut all to it"
        )
    return counts.max()
