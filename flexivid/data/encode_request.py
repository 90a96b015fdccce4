"""What ``flexivid.dataset encode`` is asked: its options, and the request that they make. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from flexivid.data.clips.windows import ClipSettings, refuse_settings
from flexivid.data.encoded.folder import PLAN, TABLE, is_encoded
from flexivid.data.sources.layout import Collection, collection_of
from flexivid.latents.settings import CodecSettings, TextSettings
from flexivid.runtime.paths import is_remote

CHOICES = {
    "windows": ("uniform", "first", "all"),
    "short": ("skip", "loop", "pad"),
    "kernel": ("bicubic", "bilinear", "area", "lanczos"),
    "dtype": ("fp32", "bf16"),
}
ENCODE_EXAMPLES = """examples:
  python -m flexivid.dataset encode my_videos my_latents --codec madebyollin/taef2 --size 128
  python -m flexivid.dataset encode my_videos my_latents --codec Wan-AI/Wan2.1-T2V-1.3B-Diffusers --codec-dtype bf16 \\
      --num-frames 81 --size 480 832 --fps 16 --text-encoder google/umt5-xxl --text-dtype bf16 --dtype bf16
  torchrun --nproc-per-node 8 -m flexivid.dataset encode my_videos my_latents --codec my_vae

The same command goes on with what was interrupted. Processes that are given the same folder share the work.
"""


@dataclass(frozen=True)
class EncodeRequest:
    """What to encode, and how.

    >>> clips = ClipSettings(num_frames=17, windows="uniform")
    >>> EncodeRequest(Collection("videos"), "latents", clips, CodecSettings("pixel")).check().clips.num_frames
    17
    """

    source: Collection
    output: str  # the encoded folder
    clips: ClipSettings  # how clips are cut out of them; the same in every epoch
    codec: CodecSettings
    text: TextSettings | None = None  # encodes captions; ``None`` = they are kept as texts
    dtype: str = "fp32"  # of what is stored, ``fp32`` or ``bf16``
    class_captions: bool = False  # take the name of its class as the caption of a video that has none
    allow_missing_captions: bool = False  # take the null text for videos without a caption
    max_bad_fraction: float = 0.05  # stop when a larger share of the files cannot be decoded
    num_workers: int | None = None  # decoding processes for each that encodes; ``None`` = they share the cores

    def check(self) -> EncodeRequest:
        """Return itself; ``ValueError`` if settings contradict each other."""
        refuse_settings(self.clips)
        if self.clips.windows == "random" or self.clips.flip or self.clips.crop == "random":
            raise ValueError(
                f"got windows={self.clips.windows}, flip={self.clips.flip}, crop={self.clips.crop}; expected clips that"
                " are the same in every epoch; set windows to uniform, first or all, and leave the others out"
            )
        folder = Path(self.output)
        if is_remote(self.output):
            raise ValueError(f"got output {self.output}; expected a folder of this machine; change it")
        if is_encoded(self.source.root):
            raise ValueError(f"got {self.source}, which is encoded already; expected videos; train on it as it is")
        names = (
            {name for name in os.listdir(folder) if TABLE not in name and PLAN not in name} if folder.is_dir() else ()
        )
        if names and not is_encoded(folder):
            raise ValueError(f"got {folder} with {min(names)} in it; expected a new folder; name another one")
        return self


def add_encode(add: Callable[..., Any]) -> None:
    """Add the options of ``encode``."""
    add("output", help="new folder, or one that an earlier run of the same command has begun")
    add("--codec", required=True, help="autoencoder: folder, hub id, or pixel")
    add("--codec-dtype", default="fp32", help="precision of the codec: fp32, bf16 or fp16 (default: fp32)")
    add("--tile", type=int, help="side in pixels of the tiles that the codec cuts pictures into (default: whole)")
    add("--text-encoder", help="encoder of captions: folder or hub id (default: captions are kept as texts)")
    add("--text-dtype", default="fp32", help="precision of the text encoder: fp32, bf16 or fp16 (default: fp32)")
    add("--max-length", type=int, help="tokens of a caption; longer ones are cut (default: the encoder's limit)")
    add("--class-captions", action="store_true", help="the name of its class as the caption of a video without one")
    add("--allow-missing-captions", action="store_true", help="the null text for videos without a caption")
    add("--num-frames", type=int, default=17, help="frames of a clip (default: 17)")
    add("--size", type=int, nargs="+", default=[256], help="height and width in pixels, or one side (default: 256)")
    add("--stride", type=int, default=1, help="take every so-many-th frame of the source (default: 1)")
    add("--fps", type=float, help="frames a second of a clip, instead of --stride")
    add("--windows", default="uniform", help="where clips lie: uniform, first or all (default: uniform)")
    add("--clips-per-video", type=int, help="clips of each video (default: as many as fit, or 1 with first)")
    add("--short", default="skip", help="videos shorter than a clip: skip, loop or pad them (default: skip)")
    add("--kernel", default="bicubic", help="how pictures are resized: bicubic, bilinear, area or lanczos")
    add("--dtype", default="fp32", help="of what is stored: fp32, or bf16 in half the room (default: fp32)")
    about = "stop when a larger share of the files cannot be decoded (default: 0.05)"
    add("--max-bad-fraction", type=float, default=0.05, help=about)
    add("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add("--devices", type=int, default=1, help="processes on so many GPUs, or on the CPU (default: 1)")


def request_of(options: Namespace) -> EncodeRequest:
    """Return the request that options make; ``ValueError`` if they contradict each other."""
    for name, choices in CHOICES.items():
        if options[name] not in choices:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"got {flag} {options[name]}; expected one of {', '.join(choices)}; choose one")
    if len(options.size) > 2:
        raise ValueError(f"got --size {options.size}; expected the side of a square, or height and width; change it")
    of_text = {"--text-dtype": options.text_dtype != "fp32", "--max-length": options.max_length is not None}
    of_text |= {"--allow-missing-captions": options.allow_missing_captions}
    if not options.text_encoder and any(of_text.values()):
        flags = ", ".join(flag for flag, is_set in of_text.items() if is_set)
        raise ValueError(f"got {flags} without --text-encoder, where it has no effect; expected both; leave it out")
    names = ("num_frames", "stride", "fps", "windows", "clips_per_video", "short", "kernel")
    settings: dict[str, Any] = {name: options[name] for name in names}
    settings |= {"size": (options.size[0], options.size[-1]), "square_pixels": options.square_pixels is not False}
    text = options.text_encoder and TextSettings(options.text_encoder, options.max_length, options.text_dtype)
    others = ("output", "dtype", "class_captions", "allow_missing_captions", "max_bad_fraction", "num_workers")
    return EncodeRequest(
        source=collection_of(Collection(options.path, options.layout or "auto", bool(options.pictures))),
        clips=ClipSettings(**settings),
        codec=CodecSettings(options.codec, options.codec_dtype, options.tile),
        text=text or None,
        **{name: options[name] for name in others},
    ).check()
