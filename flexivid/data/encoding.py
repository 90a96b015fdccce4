"""From videos to an encoded folder: what ``flexivid.dataset encode`` does in each process that shares the work."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from flexivid.data.bad_files import BadFiles, remarks
from flexivid.data.clips.dataset import ClipDataset, fingerprint
from flexivid.data.encode_request import EncodeRequest
from flexivid.data.encoded.clips import make_table, write_shard
from flexivid.data.encoded.folder import (
    HELD_OUT,
    PLAN,
    TABLE,
    TEXT,
    TRAIN,
    Encoded,
    is_encoded,
    read_encoded,
    read_end,
    refuse_change,
)
from flexivid.data.encoded.work import ClipWork, TextWork, end_of, finish, share
from flexivid.data.index.build import BadVideo
from flexivid.data.splits import Splits, load_splits, write_bad
from flexivid.data.workers.pool import DecodePool, num_cores
from flexivid.latents.codec import Codec, build_codec
from flexivid.latents.settings import TextSettings
from flexivid.latents.text_encoder import TextEncoder
from flexivid.runtime.console import OnStep, step_bars
from flexivid.runtime.files import locked, save_json
from flexivid.runtime.paths import is_remote, resolve
from flexivid.runtime.printable import printable
from flexivid.runtime.ranks import Ranks

SHARD_BYTES = 32 << 20  # what a process that is killed loses at most
LEAST_SHARDS = 64  # of a collection: so many processes have work


class Plan(NamedTuple):
    """Everything that is settled before the first shard."""

    encoded: Encoded  # what the folder will hold
    splits: Splits
    parts: dict[str, ClipDataset]  # ``train`` and, if there is one, ``held_out``
    texts: list[str]  # the different captions
    codec: Codec  # on the CPU
    encoder: TextEncoder | None


def encode_collection(request: EncodeRequest, device: torch.device, ranks: Ranks) -> str:
    """Do this process's share of the work, wait for the others, and return a line on what the folder holds now.

    The first of several processes shows the progress of all. ``ValueError`` if the folder holds other clips, captions
    are missing, or too many files cannot be decoded.
    """
    folder = Path(request.check().output)
    plan = _plan(request, folder, device, show=ranks.first)
    if read_end(folder) is not None:
        return f"{folder} is finished already: {plan.encoded}"
    source, splits = str(request.source), plan.splits
    for remark in remarks(splits, source, cache_gib=0, num_workers=1) if ranks.first else ():
        warnings.warn(remark, stacklevel=2)
    account = BadFiles(source, num_files=splits.num_files, max_fraction=request.max_bad_fraction)
    account.add(*splits.bad)
    with step_bars("/s", hidden=not ranks.first) as on_step:
        if plan.encoder is not None:
            _encode_texts(folder, plan, ranks, on_step)
            plan = plan._replace(encoder=None)  # its memory is free for the codec
        _encode_clips(request, folder, plan, device=device, ranks=ranks, on_step=on_step, account=account)
    end = end_of(folder, plan.encoded, {video.path: video.reason for video in account.by_path.values()})
    bad = [BadVideo(path, reason) for path, reason in end.bad.items()]
    account.add(*bad)  # those that other processes met, too
    if bad:
        write_bad(bad, folder)
    finish(folder, plan.encoded, end)
    missing = sum(map(len, end.missing.values()))
    listed = f"; {missing} clips are missing and {len(bad)} files cannot be decoded: {folder}/bad_videos.jsonl"
    return f"{folder}: {plan.encoded}{listed if bad else ''}"


def _plan(request: EncodeRequest, folder: Path, device: torch.device, *, show: bool) -> Plan:
    """Load the networks, list the videos, and write the description of the folder, or compare it with an older one."""
    clips, codec = request.clips, build_codec(request.codec)
    latent_size = (codec.channels, *codec.latent_size(clips.num_frames, *clips.size))
    if show and (fit := codec.fit_frames(clips.num_frames)) != clips.num_frames:
        reason = f"expected {fit}, as this codec codes: the last frame is repeated; set --num-frames {fit}"
        warnings.warn(f"got clips of {clips.num_frames} frames; {reason}", stacklevel=3)
    encoder = None if request.text is None else TextEncoder(request.text, device)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / PLAN):  # one process looks at new files, for all
        splits = load_splits(request.source, clips, progress=show)
        parts = {name: part for name, part in ((TRAIN, splits.train), (HELD_OUT, splits.val)) if part}
        captions = _captions(parts, splits.class_names, request)
        table, texts = make_table(parts, captions)
        prints = {name: fingerprint(part) for name, part in parts.items()}
        contents = json.dumps([prints, captions, splits.class_names])
        num_clips = sum(map(len, parts.values()))
        encoded = Encoded(
            source=request.source._replace(root=_absolute(request.source.root)),
            clips=clips._replace(seed=0),
            contents=hashlib.sha256(contents.encode()).hexdigest()[:16],
            num_clips={name: len(part) for name, part in parts.items()},
            class_names=splits.class_names,
            fps=splits.train.fps,
            codec=replace(request.codec, source=_absolute(request.codec.source)),
            codec_fingerprint=codec.fingerprint,
            latent_size=latent_size,
            dtype=request.dtype,
            num_captions=len(texts),
            num_too_short=splits.num_too_short,
            clips_per_shard=max(1, min(64, SHARD_BYTES // (4 * math.prod(latent_size)), num_clips // LEAST_SHARDS)),
            **({} if encoder is None or request.text is None else _of_text(request.text, encoder)),
        )
        if is_encoded(folder):
            refuse_change(folder, read_encoded(folder), encoded)
        else:
            write_shard(folder / TABLE, table)
            save_json(folder / PLAN, encoded.to_plain(), indent=1)
    return Plan(encoded, splits, parts, texts, codec, encoder)


def _of_text(settings: TextSettings, encoder: TextEncoder) -> dict[str, Any]:
    settings = replace(settings, source=_absolute(settings.source))
    return {"text_encoder": settings, "text_fingerprint": encoder.fingerprint(), "text_channels": encoder.channels}


def _absolute(source: str) -> str:
    """A local path from the root, so that the folder means the same wherever it is read from."""
    path = resolve(source)
    return os.path.abspath(path) if not is_remote(path) and os.path.exists(path) else source


def _captions(
    parts: dict[str, ClipDataset], class_names: Sequence[str], request: EncodeRequest
) -> dict[str, list[tuple[str, ...]]]:
    """The captions of every video that has clips; none at all where the collection has none and there is no encoder.

    ``ValueError`` if there is an encoder and some videos have no caption.
    """
    if request.class_captions and not class_names:
        raise ValueError(
            f"got --class-captions and {request.source}, which has no classes; expected folders or a column of classes;"
            " leave it out"
        )
    if not request.class_captions and not any(part.has_captions for part in parts.values()) and request.text is None:
        return {name: [()] * len(part.videos) for name, part in parts.items()}
    captions: dict[str, list[tuple[str, ...]]] = {name: [] for name in parts}
    missing = []
    for name, part in parts.items():
        labels = part.videos.label
        for row, count in enumerate(part.counts):
            texts = part.videos.captions(row) if count else ("-",)
            if not any(text.strip() for text in texts):
                label = int(labels[row]) if request.class_captions else -1
                texts = (class_names[label],) if label >= 0 else ("",)
                missing += [part.videos.path(row)] * (label < 0)
            captions[name].append(texts if count else ())
    if missing and request.text is not None and not request.allow_missing_captions:
        raise ValueError(
            f"got {len(missing)} videos without a caption, such as {printable(missing[0])}, and --text-encoder"
            f" {request.text.source}; expected a caption for each; write them, or set --class-captions for the names of"
            " their classes, or --allow-missing-captions for the null text"
        )
    return captions


def _encode_texts(folder: Path, plan: Plan, ranks: Ranks, on_step: OnStep) -> None:
    encoder = plan.encoder
    assert encoder is not None

    def features(caption: str) -> torch.Tensor:
        text = encoder.encode([caption])
        return text.features[0][text.mask[0]]

    work, shards = TextWork(folder, plan.texts, features, plan.encoded.dtype), plan.encoded.shards(TEXT)
    for shard in share(folder, shards, work, rank=ranks.rank, size=ranks.size):
        on_step("captions", shard.length, len(plan.texts))
    work.report()


def _encode_clips(
    request: EncodeRequest,
    folder: Path,
    plan: Plan,
    *,
    device: torch.device,
    ranks: Ranks,
    on_step: OnStep,
    account: BadFiles,
) -> None:
    encoded, total = plan.encoded, sum(plan.encoded.num_clips.values())
    workers = request.num_workers or max(1, num_cores() // ranks.size)
    with DecodePool(workers) as pool:
        work = ClipWork(
            *(folder, encoded, plan.parts),
            codec=plan.codec.to(device),
            device=device,
            pool=pool,
            on_clip=lambda: on_step("clips", 1, total),
            on_bad=lambda path, reason: account.report(BadVideo(path, reason)),
        )
        for shard in share(folder, encoded.latent_shards, work, rank=ranks.rank, size=ranks.size):
            if shard not in work.shards:
                on_step("clips", shard.length, total)


def encode_share(request: EncodeRequest, device: torch.device, ranks: Ranks) -> None:
    """Do the share of one of several processes; the first one prints what there is in the end."""
    line = encode_collection(request, device, ranks)
    if ranks.first:
        sys.stdout.write(f"{line}\n")
