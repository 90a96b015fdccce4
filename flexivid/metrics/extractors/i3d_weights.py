"""Find, download and load the public I3D weights.

Reads the environment and the cache folder. Downloads nothing by itself: a program passes the function that does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flexivid.metrics.extractors.i3d import EPS, I3D
from flexivid.metrics.extractors.i3d_checkpoint import DATA_FILE, read_checkpoint
from flexivid.runtime.paths import cache_folder, resolve_path

URL = f"https://raw.githubusercontent.com/google-deepmind/kinetics-i3d/master/data/checkpoints/rgb_scratch/{DATA_FILE}"
CACHED_NAMES = (DATA_FILE, "i3d.safetensors", "i3d_pretrained_400.pt", "i3d.pt")
COMPAT_EPS = {None: EPS, "videogpt": 1e-5}  # the eps of VideoGPT's port, which TATS, cd-fvd and others took over


def find_weights(path: str | os.PathLike[str] | None = None) -> Path:
    """Find the file, or DeepMind's folder: ``path``, else ``$FLEXIVID_I3D``, else in ``i3d/`` of the cache folder.

    >>> find_weights("none.pt")
    Traceback (most recent call last):
    FileNotFoundError: got I3D weights none.pt, which do not exist; expected a file; correct the path
    """
    named, origin = path or os.environ.get("FLEXIVID_I3D"), "" if path else " in FLEXIVID_I3D"
    if named:
        file = resolve_path(named)
        file = file / DATA_FILE if file.is_dir() else file
        if not file.exists():
            raise FileNotFoundError(
                f"got I3D weights {file}, which do not exist; expected a file; correct the path{origin}"
            )
        return file
    if (cached := _cached()) is None:
        raise FileNotFoundError(f"got no I3D weights; {_ways()}")
    return cached


def fetch_weights(download: Callable[[str, Path], Any]) -> Path:
    """Download DeepMind's file into the cache folder, unless there are weights already, and check all its tensors.

    ``download`` fetches an address to a path, e.g. ``flexivid.data.storage.download.download``, which resumes.
    ``FileNotFoundError`` if it cannot; the message lists the other ways. ``ValueError`` if another file arrives; it is
    removed.
    """
    path = cache_folder("i3d") / DATA_FILE
    if os.environ.get("FLEXIVID_I3D") or _cached() not in (None, path):
        return find_weights()
    try:
        download(URL, path)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(f"got no I3D weights from the download ({error}); {_ways()}") from error
    try:
        read_checkpoint(path)
    except ValueError:
        path.unlink()  # so that it is not used by the next call
        raise
    return path


def load_i3d(path: str | os.PathLike[str] | None = None, *, compat: str | None = None) -> I3D:
    """Return the network with public weights (see :func:`find_weights`), frozen and in evaluation mode.

    ``compat="videogpt"`` gives the numbers of the PyTorch ports that have another epsilon. ``ValueError`` if the
    weights are damaged or of another network, or ``compat`` is not known.
    """
    if compat not in COMPAT_EPS:
        raise ValueError(f"got compat {compat!r}; expected 'videogpt' or None; leave it out for FVD as it is defined")
    state = read_checkpoint(find_weights(path))
    network = I3D(eps=COMPAT_EPS[compat])
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _cached() -> Path | None:
    folder = cache_folder("i3d")
    files = (parent / name for parent in (folder, folder.parent) for name in CACHED_NAMES)
    return next((file for file in files if file.is_file()), None)


def _ways() -> str:
    return (
        f"expected those of DeepMind's rgb_scratch; run `python -m flexivid.evaluate --download` where {URL} can be"
        " reached, or fetch that file (50,818,176 bytes; a port's i3d_pretrained_400.pt will do) elsewhere and put it"
        f" into {cache_folder('i3d')}, or set FLEXIVID_I3D to it, or name it with --weights or weights=; or take"
        " another metric, e.g. motion"
    )
