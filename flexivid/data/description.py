"""What is known of the data of a run: before any batch classes, captions, sizes, and what clips were encoded with."""

from __future__ import annotations

from typing import Any

from flexivid.data.bad_files import BadFiles
from flexivid.data.clips.buckets import Bucket
from flexivid.data.clips.windows import ClipSettings, refuse_settings
from flexivid.data.encoded.clips import EncodedSet
from flexivid.data.encoded.decode import RealClips, real_clips_of
from flexivid.data.encoded.folder import TRAIN
from flexivid.data.sources.layout import Collection
from flexivid.data.sources.manifest import Manifests, read_manifests
from flexivid.data.splits import Splits


def _of_encoded(name: str, words: str, default: Any = None) -> property:
    """What an encoded folder says of its clips, with a docstring; the default for videos."""
    return property(lambda data: getattr(data.encoded.encoded, name) if data.encoded else default, doc=words)


class Description:
    """What is known of the collection of a data module without opening a file."""

    collection: Collection  # where the data are
    settings: ClipSettings  # how clips are cut out
    encoded: EncodedSet | None = None  # contents of an encoded folder; ``None`` for videos
    buckets: tuple[Bucket, ...] = ()
    batch_size: int = 1
    _splits: Splits | None = None
    _bad: BadFiles | None = None
    _manifests: Manifests | None = None

    def check(self, latents: str | None) -> None:
        """Refuse settings that make no sense with ``ValueError``; ``latents`` is the setting of an earlier version."""
        refuse_settings(self.settings)
        if latents is not None:
            raise ValueError(
                f"got data.latents={latents}; expected data.root to be a folder of latents; make one with `python -m"
                " flexivid.dataset encode`, and name it as data.root"
            )
        if self.encoded is not None and self.buckets:
            raise ValueError(f"got data.buckets for {self.collection.root}, whose clips have one shape; leave them out")
        if self.batch_size < 1:
            raise ValueError(f"got data.batch_size={self.batch_size}; expected at least 1; raise data.batch_size")

    @property
    def manifests(self) -> Manifests:
        """The videos, their classes and captions. The first call lists the collection: once in each process."""
        if self._manifests is None:
            self._manifests = read_manifests(self.encoded.encoded.source if self.encoded else self.collection)
        return self._manifests

    def real_clips(self) -> RealClips:
        """Videos, and how clips are cut out of them, to compare generated ones with: of an encoded folder its source.

        Where that is gone, held-out latents are decoded (see ``encoded.decode.real_clips_of``).
        """
        return real_clips_of(self.collection.root) if self.encoded else RealClips(self.collection, self.settings)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their labels; empty without class folders."""
        return self.encoded.encoded.class_names if self.encoded else self.manifests.train.class_names

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 without class folders."""
        return len(self.class_names)

    @property
    def has_captions(self) -> bool:
        """Whether batches have ``caption``."""
        return self.encoded.encoded.num_captions > 0 if self.encoded else self.manifests.train.has_captions

    @property
    def clip_size(self) -> tuple[int, int, int]:
        """Frames, height, width of a clip in pixels."""
        return (self.settings.num_frames, *self.settings.size)

    latent_size = _of_encoded("latent_size", "Size (c, t, h, w) of the latent of a clip; ``None`` for pixels.")
    latent_codec = _of_encoded("codec", "Settings of the codec that made the latents; ``None`` for pixels.")
    codec_fingerprint = _of_encoded("codec_fingerprint", "Of the weights of that codec; ``None`` for pixels.")
    text_encoder = _of_encoded("text_encoder", "Settings of the encoder that made ``text_features``, or ``None``.")
    text_fingerprint = _of_encoded("text_fingerprint", "Of the weights of that encoder; ``None`` without.")
    text_channels = _of_encoded("text_channels", "Features of a token of ``text_features``; 0 without.", 0)

    @property
    def splits(self) -> Splits:
        """The clips, and an account of what is left out; there after ``setup``."""
        if self._splits is None:
            raise RuntimeError("got no data yet; expected setup() to have run; call setup() first")
        return self._splits

    @property
    def num_clips(self) -> int:
        """Training clips of an epoch; there after ``setup``. Likewise ``fps`` and ``skipped``."""
        return self.encoded.encoded.num_clips[TRAIN] if self.encoded else len(self.splits.train)

    @property
    def fps(self) -> float:
        """Frames a second of the clips: ``fps``, or the median over the videos, divided by ``stride``."""
        return self.encoded.encoded.fps if self.encoded else self.splits.train.fps

    @property
    def skipped(self) -> dict[str, int]:
        """How many videos are left out, by cause: ``bad`` and ``too_short``."""
        if self.encoded:
            return {"bad": len(self.encoded.end.bad), "too_short": self.encoded.encoded.num_too_short}
        bad = self.splits.bad if self._bad is None else self._bad.by_path
        return {"bad": len(bad), "too_short": self.splits.num_too_short if self.settings.short == "skip" else 0}
