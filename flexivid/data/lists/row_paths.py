"""Resolve the paths in the rows of a list: relative to the list, and expanded like any other path (``runtime.paths``).

Takes and returns Arrow columns; only rows with something to expand become Python strings.
"""

import os

import pyarrow as pa
import pyarrow.compute as pc

from flexivid.data.storage.byte_range import is_byte_range
from flexivid.runtime.paths import Names, expand, is_remote, tidy

_WHOLE = r"^(/|shard:|(?i:(?:[a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]*://))"
_SPECIAL = r"^~|^(?i:file|local):|[$\\]|/\.?/|[^\x00-\x7f]"


def whole_paths(table: str, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    r"""Return the paths in the rows of a list (``table``, a file or url), ready to be opened.

    Urls, absolute paths, ``~`` and variables stand for themselves; all others are relative to the folder of the list.
    Names with accents are found in whatever unicode form the disk has. A backslash separates folders unless a file has
    it in its name: lists come from Windows, too.

    >>> whole_paths("lists/l.csv", pa.chunked_array([["a.mp4", "./b.mp4", "/c.mp4", "s3://d.mp4", "e::f"]])).to_pylist()
    ['lists/a.mp4', 'lists/b.mp4', '/c.mp4', 's3://d.mp4', 'lists/e::f']
    """
    paths = pc.cast(paths, pa.large_string())
    folder = table.rsplit("/", 1)[0] if is_remote(table) else os.path.dirname(table) or "."
    special = pc.match_substring_regex(paths, _SPECIAL)
    relative = pc.replace_substring_regex(paths, r"^(\./)+", "")
    text = pa.large_string()
    joined = pc.binary_join_element_wise(pa.scalar(folder, text), relative, pa.scalar("/", text))
    result = pc.if_else(pc.match_substring_regex(paths, _WHOLE), paths, joined)
    if not pc.any(special).as_py():
        return result
    names = Names()
    meant = pa.array([_resolved(folder, path, names) for path in paths.filter(special).to_pylist()], text)
    return pa.chunked_array([pc.replace_with_mask(result.combine_chunks(), special.combine_chunks(), meant)])


def _resolved(folder: str, path: str, names: Names) -> str:
    if is_byte_range(path):
        return path
    if "$" in path and not is_remote(folder) and os.path.lexists(literal := f"{folder}/{path}"):
        return tidy(literal)
    meant = expand(path)
    if not is_remote(meant) and not meant.startswith("/"):
        meant = f"{folder}/{meant.removeprefix('./')}"
    if is_remote(meant):
        return meant
    meant = tidy(meant)
    if "\\" in meant and not os.path.lexists(meant):
        meant = meant.replace("\\", "/")
    return names.existing(meant)
