"""Latents of clips on disk, so that a codec that is slow runs once and not in every epoch.

A folder holds one array for each part of a data set: ``train.npy``, (clips, c, t, h, w), mapped into memory, and
``train.json``, which says what the latents are of and what made them. Only clips that are the same in every epoch can
be kept. Knows no codec: what turns pixels into latents is passed in. Imports no Lightning.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flexivid.data.clips.dataset import Address, ClipDataset
from flexivid.data.clips.loader import Batch, described
from flexivid.data.clips.trainer_state import FollowsRun
from flexivid.data.clips.windows import ClipSettings
from flexivid.data.decoding.probe import VideoError
from flexivid.data.workers.pool import DecodePool, outcomes
from flexivid.runtime.files import atomic_write
from flexivid.runtime.paths import resolve

Encode = Callable[[Tensor], Tensor]  # (b, c, t, h, w) uint8 -> (b, c, t, h, w), any floating point


class LatentCache(NamedTuple):
    """Latents of one part of a data set.

    Args:
        latents: One for each clip, (clips, c, t, h, w).
        missing: Clips that could not be decoded, whose latents mean nothing.
        codec: Name and version of what made them.

    >>> LatentCache(np.zeros((3, 4, 2, 8, 8), np.float16), frozenset([1]), "vae 1").latents.shape[1:]
    (4, 2, 8, 8)
    """

    latents: np.ndarray
    missing: frozenset[int]
    codec: str


def write_latents(
    folder: str | os.PathLike[str],
    dataset: ClipDataset,
    encode: Encode,
    *,
    codec: str,
    pool: DecodePool,
    name: str = "train",
    batch_size: int = 8,
) -> LatentCache:
    """Decode all clips of a data set, and keep what a codec makes of them, in half precision.

    Args:
        folder: Where; made if it is not there.
        dataset: The clips, which must not be drawn anew in each epoch.
        encode: Turns clips, (b, c, t, h, w) uint8, into latents.
        codec: Name and version of it, so that latents of one codec are never taken for those of another.
        pool: Decodes.
        name: Which part of a data set this is: "train" or "val".
        batch_size: Clips that are encoded together.

    Raises:
        ValueError: If the clips are not always the same, or none can be decoded.

    >>> from flexivid.data.index.videos import Videos
    >>> dataset = ClipDataset(Videos.of(["a.mp4"]), ClipSettings())
    >>> write_latents("latents", dataset, torch.Tensor.half, codec="vae 1", pool=DecodePool(1))
    Traceback (most recent call last):
    ...
    ValueError: got data.latents and data.windows=random; expected clips that are the same in every epoch; set \
data.windows=uniform
    """
    _refuse_drawn(dataset)
    target = Path(resolve(folder))
    target.mkdir(parents=True, exist_ok=True)
    with atomic_write(target / f"{name}.npy") as part:
        missing = _write(part, dataset, encode, pool=pool, batch_size=batch_size)
    note = {"codec": codec, "clips": fingerprint(dataset), "missing": missing}
    with atomic_write(target / f"{name}.json") as part:
        part.write_text(json.dumps(note))
    return open_latents(folder, dataset, name=name)


def _write(part: Path, dataset: ClipDataset, encode: Encode, *, pool: DecodePool, batch_size: int) -> list[int]:
    """Write the array; return the clips that have no latent."""
    array, missing = None, []
    requests = ((clip, dataset.plan((clip, 0))) for clip in range(len(dataset)))
    for found in _groups(outcomes(requests, pool), batch_size):
        good = {clip: frames for clip, frames in found if not isinstance(frames, VideoError)}
        missing += [clip for clip, _ in found if clip not in good]
        if good:
            latents = _encoded(list(good.values()), encode)
            if array is None:
                shape = (len(dataset), *latents.shape[1:])
                array = np.lib.format.open_memmap(part, "w+", latents.dtype, shape)
            array[list(good)] = latents
    if array is None:
        raise ValueError(f"got {len(dataset)} clips, none of which can be decoded; expected some; run dataset check")
    array.flush()
    return missing


def open_latents(folder: str | os.PathLike[str], dataset: ClipDataset, *, name: str = "train") -> LatentCache:
    """Return latents that ``write_latents`` has written, mapped into memory.

    Args:
        folder: Where they are.
        dataset: The clips that they must be of.
        name: Which part of the data set this is.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If they are of other clips.

    >>> from flexivid.data.index.videos import Videos
    >>> open_latents("nowhere", ClipDataset(Videos.of(["a.mp4"]), ClipSettings(windows="uniform")))
    Traceback (most recent call last):
    ...
    FileNotFoundError: got data.latents=nowhere without train.npy; expected latents; write them, or correct the path
    """
    _refuse_drawn(dataset)
    files = [Path(resolve(folder), name + ending) for ending in (".json", ".npy")]
    if not all(file.is_file() for file in files):
        state = f"got data.latents={os.fspath(folder)} without {files[1].name}"
        raise FileNotFoundError(f"{state}; expected latents; write them, or correct the path")
    clips, missing, made_by = _note(files[0])
    for key, value in json.loads(json.dumps(fingerprint(dataset))).items():
        if clips.get(key) != value:
            raise ValueError(
                f"got {files[1]} of clips with {key}={clips.get(key)}; expected {key}={value}; "
                f"write the latents anew, or change the data back"
            )
    return LatentCache(open_array(files[1]), missing, made_by)


def open_array(file: str | os.PathLike[str]) -> np.ndarray:
    """Return the array in a ``.npy`` file, mapped into memory.

    Raises:
        ValueError: If it is cut off or damaged, or holds Python objects, which would be code.

    >>> import tempfile
    >>> file = tempfile.mkdtemp() + "/train.npy"
    >>> np.save(file, np.array([{}]))
    >>> try:
    ...     open_array(file)
    ... except ValueError as error:
    ...     print(str(error).replace(file, "train.npy"))
    got train.npy, which cannot be read (Array can't be memory-mapped: Python objects in dtype.); expected an array of \
numbers; write it anew
    """
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        reason = str(error).split(" If you trust")[0]  # numpy goes on with how to run what is in the file
        raise ValueError(
            f"got {file}, which cannot be read ({reason}); expected an array of numbers; write it anew"
        ) from error


def _note(file: Path) -> tuple[dict[str, Any], frozenset[int], str]:
    """What latents are of, which of them mean nothing, and what made them."""
    try:
        note = json.loads(file.read_text())
        return dict(note["clips"]), frozenset(map(int, note["missing"])), str(note["codec"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"got {file}, which cannot be read ({error!r}); write the latents anew") from error


def fingerprint(dataset: ClipDataset) -> dict[str, Any]:
    """Return what the clips of a data set depend on: settings, shapes, and a hash of the videos, wherever they lie.

    >>> from flexivid.data.index.videos import Videos
    >>> found = fingerprint(ClipDataset(Videos.of(["a.mp4"], num_frames=16), ClipSettings(stride=2)))
    >>> found["stride"], found["num_clips"], len(found["videos"])
    (2, 1, 16)
    """
    videos, settings = dataset.videos, dataset.settings._asdict()
    del settings["seed"]  # decides nothing where nothing is drawn
    del settings["square_pixels"], settings["decoder"]  # sizes tell the first; the second must show the same pictures
    columns = (videos.num_frames, videos.first, videos.heights, videos.widths, videos.label, videos.num_bytes)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns))
    if videos.has_displays:
        digest.update("\n".join(videos.display(row) for row in range(len(videos))).encode())
    return settings | {"buckets": dataset.buckets, "num_clips": len(dataset), "videos": digest.hexdigest()[:16]}


class LatentLoader(FollowsRun):
    """An iterable of batches: ``latent``, (b, c, t, h, w), ``label`` and ``caption`` as a ``ClipLoader`` gives them.

    Args:
        dataset: The clips.
        batches: The addresses of each batch.
        cache: Their latents.
        substitute: Gives the ``number``-th clip that takes the place of one without a latent; None leaves it out.

    >>> from flexivid.data.index.videos import Videos
    >>> dataset = ClipDataset(Videos.of(["a.mp4"], num_frames=24), ClipSettings(windows="uniform"))
    >>> cache = LatentCache(np.arange(3, dtype=np.float16).reshape(3, 1, 1, 1, 1), frozenset([1]), "vae 1")
    >>> loader = LatentLoader(dataset, [[(0, 0), (1, 0)]], cache=cache, substitute=dataset.substitute)
    >>> [batch["latent"].flatten().tolist() for batch in loader]
    [[0.0, 2.0]]
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batches: Iterable[list[Address]],
        *,
        cache: LatentCache,
        substitute: Callable[[int, int], int | None],
    ) -> None:
        self.dataset, self.batches, self.cache, self.substitute = dataset, batches, cache, substitute

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        for addresses in self.batches:
            clips = zip(map(self._present, addresses), addresses, strict=True)
            present = [(clip, epoch) for clip, (_, epoch) in clips if clip is not None]
            if present:
                latents = torch.from_numpy(self.cache.latents[[clip for clip, _ in present]])
                yield {"latent": latents, **described(self.dataset, present)}

    def _present(self, address: Address) -> int | None:
        """Return the clip itself, or the first substitute that has a latent."""
        clip: int | None = address[0]
        number = 0
        while clip in self.cache.missing:
            number += 1
            clip = self.substitute(address[0], number)
        return clip


def _refuse_drawn(dataset: ClipDataset) -> None:
    settings, fixed = dataset.settings, ClipSettings(windows="uniform")
    drawn = settings.windows == "random" and "windows"
    drawn = drawn or (settings.flip and "flip") or (settings.crop == "random" and "crop")
    if drawn:
        raise ValueError(
            f"got data.latents and data.{drawn}={getattr(settings, drawn)}; expected clips that are the same in every "
            f"epoch; set data.{drawn}={getattr(fixed, drawn)}"
        )
    if len(dataset.buckets) > 1:
        raise ValueError("got data.latents and data.buckets; expected latents of one shape; remove data.buckets")


def _groups(items: Iterable[tuple[int, Any]], size: int) -> Iterator[list[tuple[int, Any]]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


def _encoded(clips: list[np.ndarray], encode: Encode) -> np.ndarray:
    pixels = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).contiguous()  # b t h w c -> b c t h w
    with torch.inference_mode():
        return encode(pixels).to("cpu", torch.float16).numpy()
