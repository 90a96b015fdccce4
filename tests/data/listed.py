"""What a manifest holds, as tests compare it: (path, label, caption) of each video; captions beside videos are read."""

import warnings
from pathlib import Path
from typing import NamedTuple

from flexivid.data.decoding.probe import VideoError, probe
from flexivid.data.lists.cells import unpack
from flexivid.data.sources.folder_manifest import read_folder
from flexivid.data.sources.leftovers import LeftOutWarning
from flexivid.data.sources.manifest import read_caption
from flexivid.runtime.paths import is_remote, resolve


class Item(NamedTuple):
    """One video; the path is a string if it is a url."""

    path: Path | str
    label: int
    caption: str


def probe_each(paths):
    """Facts or errors of files, one after the other, in this process."""
    for path in paths:
        try:
            yield probe(path)
        except VideoError as error:
            yield error


def items(manifest):
    """Every video of a manifest."""
    columns = (manifest.table[name].to_pylist() for name in ("path", "label", "caption", "text"))
    return [
        Item(path if is_remote(path) else Path(path), label, unpack(read_caption(path, text) if text else caption)[0])
        for path, label, caption, text in zip(*columns, strict=True)
    ]


def scan(root, *, class_names=None):
    """The manifest of one folder, its parts aside."""
    manifest, _ = read_folder(resolve(root), class_names=class_names)
    for note in manifest.notes:
        warnings.warn(note, LeftOutWarning, stacklevel=1)
    return manifest
