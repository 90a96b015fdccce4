"""What the Hugging Face hub has, asked for seconds: its libraries wait for minutes if packets are dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HUB_SECONDS = 10.0


def cache_alone(hub_id: str) -> dict[str, Any]:
    """Return the options of a loader that reads the cache alone if the hub does not answer; empty if it does.

    An answer that refuses is one too: the loader then says why.
    """
    return {"local_files_only": True} if _has(hub_id) is None else {}


def cached_folder(hub_id: str, revision: str | None = None) -> str | None:
    """Return the folder of a model in the hub's cache; ``None`` if it is not there. Asks nothing of the hub.

    Example:
        >>> print(cached_folder("flexivid/no-such-model"))
        None
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return str(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def is_within_reach(hub_id: str) -> bool:
    """Return whether the hub has a model, or the cache its weights.

    Example:
        >>> is_within_reach("flexivid/no-such-model")
        False
    """
    folder = cached_folder(hub_id)
    return (folder is not None and any(Path(folder).rglob("*.safetensors"))) or bool(_has(hub_id))


def _has(hub_id: str) -> bool | None:
    """Whether the hub has a model; ``None``: it does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().repo_info(hub_id, timeout=HUB_SECONDS)
    except HfHubHTTPError:
        return False
    except Exception:  # of the HTTP library
        return None
    return True
