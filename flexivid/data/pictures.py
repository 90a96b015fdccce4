"""Batches of pictures among those of videos: a second collection, of clips of one frame, takes a share of the steps.

Imports no Lightning. Which steps those are is drawn from (seed, step); within them the pictures follow each other as
the clips of a run do, so that ranks agree and a resumed run goes on exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from flexivid.data.clips.loader import Batch, ClipLoader
from flexivid.data.clips.sampler import PictureSteps
from flexivid.data.clips.trainer_state import FollowsRun, Run
from flexivid.data.encoded.clips import EncodedLoader

Module = Any  # ``VideoDataModule``, whose file imports this one

FROM_VIDEOS = ("seed", "flip", "crop", "kernel", "square_pixels")  # settings that pictures share with the videos
LIMITS = (
    "val_clips",
    "num_workers",
    "cache_gib",
    "max_bad_fraction",
    "max_seconds_per_file",
    "max_gib_per_file",
    "trust_index",
)


def picture_module(videos: Module, root: str) -> Module:
    """Return the data module of the pictures: clips of one frame as large as those of the videos, one from each file.

    ``root`` holds pictures, videos or both; or it is an encoded folder of clips of one frame, if the videos are
    encoded. ``ValueError`` if share or folder make no sense, or pictures and videos are encoded by different networks.
    """
    if not 0 < (share := videos.picture_steps.share) < 1:
        raise ValueError(f"got data.picture_share={share}; expected more than 0 and less than 1; change it")
    if videos.buckets:
        raise ValueError(
            "got data.buckets and data.picture_root; expected one of them; with data.pictures, buckets take pictures in"
            " data.root"
        )
    settings = {name: getattr(videos.settings, name) for name in FROM_VIDEOS} if videos.encoded is None else {}
    settings |= {name: getattr(videos, name) for name in LIMITS}
    if videos.encoded is None:
        settings |= {"num_frames": 1, "size": videos.settings.size, "clips_per_video": 1, "pictures": True}
        settings["windows"] = "random" if videos.settings.windows == "random" else "uniform"
    pictures = type(videos)(root, batch_size=videos.batch_size, **{"seed": videos.settings.seed} | settings)
    pictures.subfolder = "pictures"
    pictures._died = videos._died  # one account, which checkpoints of the run keep
    if pictures.clip_size != (size := (1, *videos.clip_size[1:])):
        raise ValueError(
            f"got data.picture_root={root} with clips of {pictures.clip_size}; expected {size}; encode it"
            " with --num-frames 1 and the size of the videos"
        )
    for name in ("codec_fingerprint", "text_fingerprint"):
        if getattr(pictures, name) != getattr(videos, name):
            raise ValueError(
                f"got data.picture_root={root} with {name} {getattr(pictures, name)}; expected"
                f" {getattr(videos, name)}, as {videos.root} has; encode both with the same networks"
            )
    return pictures


def mixed_loader(videos: Module, pictures: Module, batch_size_at: Callable[[int], int]) -> MixedLoader:
    """Return the training batches of both modules; that of the pictures is set up here."""
    steps = videos.picture_steps
    _set_up(videos, pictures)
    pictures.set_batch_sizes(batch_size_at)
    loader = pictures.train_loader(steps.at)
    loader.batches.num_steps = None  # the videos say when an epoch ends
    stills = PictureLoader(loader, _classes(videos, pictures))
    accumulate = Run(videos.trainer).accumulate
    return MixedLoader(videos.train_loader(lambda step: not steps.at(step)), stills, steps, accumulate=accumulate)


def held_out_pictures(videos: Module, pictures: Module) -> list[PictureLoader]:
    """Return the loader of the held-out pictures, which are set up here; none where there are no such pictures."""
    _set_up(videos, pictures)
    loader = pictures.val_loader()
    return [PictureLoader(loader, _classes(videos, pictures))] if loader is not None else []


def _set_up(videos: Module, pictures: Module) -> None:
    pictures.trainer = videos.trainer
    pictures.setup("fit")


def _classes(videos: Module, pictures: Module) -> list[int]:
    """Class of the videos of each class of the pictures, -1 where it has none."""
    return [videos.class_names.index(name) if name in videos.class_names else -1 for name in pictures.class_names]


class PictureLoader(FollowsRun):
    """Batches of pictures with the classes of the run. Those without captions have the null text."""

    def __init__(self, loader: ClipLoader | EncodedLoader, classes: Sequence[int]) -> None:
        self.loader, self.classes = loader, torch.tensor([*classes, -1])  # the last one for the label -1

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            label: Any = batch["label"]
            yield {"caption": [""] * len(label)} | batch | {"label": self.classes[label]}


class MixedLoader(FollowsRun):
    """Batches of videos, whose number counts, and of pictures in the ``steps`` that are theirs.

    ``accumulate`` batches are a global step.
    """

    def __init__(
        self, videos: ClipLoader | EncodedLoader, pictures: PictureLoader, steps: PictureSteps, *, accumulate: int
    ) -> None:
        self.videos, self.pictures, self.steps, self.accumulate = videos, pictures, steps, accumulate

    def __len__(self) -> int:
        return len(self.videos)

    def __iter__(self) -> Iterator[Batch]:
        videos, pictures = iter(self.videos), iter(self.pictures)
        first = self.videos.batches.start_step()  # type: ignore[attr-defined]
        for step in range(first, first + len(self)):
            yield next(pictures if self.steps.at(step // self.accumulate) else videos)
