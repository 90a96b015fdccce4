"""The error that says why a video is refused."""

from __future__ import annotations

import os

from flexivid.runtime.printable import printable


class VideoError(ValueError):
    """A file that cannot be decoded as a video, and why.

    Args:
        path: The file.
        reason: What went wrong, in a few words.

    >>> str(VideoError("a.mp4", "no video stream"))
    'got a.mp4: no video stream; expected a video that decodes to its end; re-encode or remove the file'
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(os.fspath(path), reason)
        self.path, self.reason = os.fspath(path), reason

    def __str__(self) -> str:
        name, reason = printable(self.path), printable(self.reason)
        return f"got {name}: {reason}; expected a video that decodes to its end; re-encode or remove the file"
