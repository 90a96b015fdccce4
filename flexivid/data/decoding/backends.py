"""Three decoders behind one interface: frames of a file by number, resized.

``PyavDecoder`` (see ``pyav``) is exact for every file that ``probe`` accepts, and the fastest. ``DecordDecoder`` and
``TorchcodecDecoder`` are used on request, for files on which ``probe`` has compared them with PyAV.

Imports PyAV, numpy and, on first use, decord or torchcodec. Decoders cannot be pickled.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from typing import Any, Literal, get_args

import av
import numpy as np

from flexivid.data.decoding.container import Source, name_of, opened
from flexivid.data.decoding.facts import Facts
from flexivid.data.decoding.frame_folder import FolderDecoder
from flexivid.data.decoding.pyav import PyavDecoder, Scaler, View
from flexivid.data.storage.errors import VideoError
from flexivid.runtime.paths import is_remote

Choice = Literal["auto", "pyav", "decord", "torchcodec"]
CHOICES = get_args(Choice)


class DecordDecoder:
    """Frames by decord, which resizes while decoding and always with the bicubic filter.

    Every frame is decoded in turn: ``seek_accurate``, ``skip_frames`` and ``get_batch`` of decord 3 give up on a busy
    machine, log it, and return earlier frames than those asked for. One thread is the fastest for each core.
    ``VideoError`` if it cannot open the file, counts other frames than there are, or would have to turn, mirror or cut
    them.
    """

    def __init__(self, source: Source, info: Facts, view: View) -> None:
        self._name, self._info = name_of(source), info
        self._next = 0  # number of the frame that decord returns next; -1: seek first
        self._height, self._width = view.size or info.size
        if is_remote(source) or view.kernel != "bicubic":
            raise VideoError(self._name, "not for decord")
        _refuse_display(self._name, info, "decord")
        decord = import_module("decord")
        decord.logging.set_level(decord.logging.QUIET)
        self._errors = (decord.DECORDError, RuntimeError, StopIteration, IndexError, AssertionError)
        try:
            with opened(source) as file:
                # without a tolerance for faults, decord repeats frames in place of damaged ones
                size = {"width": self._width, "height": self._height}
                self._reader = decord.VideoReader(file, num_threads=1, fault_tol=1e-9, **size)
        except self._errors as error:
            raise VideoError(self._name, f"decord: {error}") from error
        if len(self._reader) != info.num_frames:
            self.close()
            raise VideoError(self._name, "decord counts other frames")

    def timestamps(self) -> np.ndarray:
        """When each frame is shown according to decord, in seconds."""
        return np.asarray(self._reader.get_frame_timestamp(range(len(self._reader))))[:, 0]

    def pictures(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, picture) for each of some frames, given in increasing order."""
        for number in numbers:
            try:
                picture = self._read(number)
            except self._errors as error:
                self._next = -1
                raise VideoError(self._name, f"decord: {error}") from error
            yield number, picture

    def pause(self) -> None:
        """Stop decoding ahead, which decord does in a thread."""
        with suppress(*self._errors):
            self._reader.seek(0)
        self._next = -1

    def close(self) -> None:
        self._reader = None

    @cached_property
    def _starts(self) -> list[int]:
        """Frames to start at: decord's key frames but for those of open GOPs, after which it miscounts."""
        return np.intersect1d(self._reader.get_key_indices(), self._info.entries[:, 1]).tolist()

    def _read(self, number: int) -> np.ndarray:
        """Decode on to a frame, or from the key frame before it where that is nearer."""
        if number != self._next:
            start = max((start for start in self._starts if start <= number), default=0)
            if not start <= self._next <= number:
                self._reader.seek(start)
                self._next = start
        for _ in range(number - self._next):
            self._reader.next()
        # decord leaves padding at the end of rows of some narrow widths (32, 48, 96) and calls it channels
        rows = self._reader.next().asnumpy().reshape(self._height, -1)
        self._next = number + 1
        return rows[:, : 3 * self._width].reshape(self._height, self._width, 3)


class TorchcodecDecoder:
    """Frames by torchcodec in its exact mode, if it is installed and finds the libraries of FFmpeg.

    ``VideoError`` for the reasons of ``DecordDecoder``, or if torchcodec is not there.
    """

    def __init__(self, source: Source, info: Facts, view: View) -> None:
        self._name, self._scaler = name_of(source), Scaler(0, view._replace(size=view.size or info.size))
        if is_remote(source):
            raise VideoError(self._name, "not for torchcodec")
        _refuse_display(self._name, info, "torchcodec")
        self._stored = info.display.stored
        try:
            reader = import_module("torchcodec.decoders").VideoDecoder
            self._reader = reader(source, seek_mode="exact", num_ffmpeg_threads=1)
        except Exception as error:  # it has no class of errors of its own
            raise VideoError(self._name, f"torchcodec: {error}") from error
        if len(self._reader) != info.num_frames:
            raise VideoError(self._name, "torchcodec counts other frames")

    def timestamps(self) -> np.ndarray:
        """When each frame is shown according to torchcodec, in seconds."""
        return np.array([self._frame(number).pts_seconds for number in range(len(self._reader))])

    def pictures(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, picture) for each of some frames, given in increasing order."""
        for number in numbers:
            picture = self._frame(number).data.permute(1, 2, 0).contiguous().numpy()
            if self._stored is not None and picture.shape[:2] != self._stored:
                raise VideoError(self._name, f"torchcodec gives pictures of {picture.shape[1]}x{picture.shape[0]}")
            yield number, self._scaler(av.VideoFrame.from_ndarray(picture))

    def close(self) -> None:
        self._reader = None

    def _frame(self, number: int) -> Any:
        try:
            return self._reader.get_frame_at(number)
        except Exception as error:
            raise VideoError(self._name, f"torchcodec: {error}") from error


def _refuse_display(name: str, info: Facts, decoder: str) -> None:
    """Refuse files whose display only ``PyavDecoder`` applies; the others rotate in some versions and not in others."""
    if info.rotation or info.display.mirrored or any(info.display.cut):
        raise VideoError(name, f"{decoder} does not turn, mirror or cut pictures as the file asks")


DECODERS: dict[str, type[Any]] = {
    "pyav": PyavDecoder,
    "decord": DecordDecoder,
    "torchcodec": TorchcodecDecoder,
    "pictures": FolderDecoder,  # for folders of pictures only
}
MODULES = {"decord": "decord", "torchcodec": "torchcodec.decoders"}


def refuse_decoder(name: str, *, kernel: str = "bicubic") -> None:
    """Raise ``ValueError`` for a decoder that does not exist, cannot be imported, or cannot resize with a filter.

    >>> refuse_decoder("ffmpeg")
    Traceback (most recent call last):
    ...
    ValueError: got decoder=ffmpeg; expected one of auto, pyav, decord, torchcodec; choose one of them
    """
    if name not in CHOICES:
        raise ValueError(f"got decoder={name}; expected one of {', '.join(CHOICES)}; choose one of them")
    if name == "decord" and kernel != "bicubic":
        raise ValueError(f"got data.kernel={kernel} for decoder=decord; expected bicubic; change one of them")
    try:
        if name in MODULES:
            import_module(MODULES[name])
    except Exception as error:  # torchcodec raises RuntimeError where it finds no libraries of FFmpeg
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"got decoder={name}, which cannot be imported ({reason}); expected it to be installed, with all it needs; "
            f"install it, or take decoder=auto"
        ) from error
