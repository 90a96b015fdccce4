"""Videos in, clips out: what a folder holds, which frames make a clip, decoding, batches, the Lightning data module.

Public names are loaded on first use: importing this package imports neither torch nor Lightning.

>>> from flexivid.data import VideoError
>>> issubclass(VideoError, ValueError)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexivid.data.decoding.reader import open_video
    from flexivid.data.module import VideoDataModule
    from flexivid.data.storage.errors import VideoError

_HOMES = {"VideoDataModule": "module", "VideoError": "storage.errors", "open_video": "decoding.reader"}

DOORS = ("encode_request", "encoding", "module", "splits")
__all__ = ["VideoDataModule", "VideoError", "open_video"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; expected one of {__all__}")


def __dir__() -> list[str]:
    return sorted(__all__)
