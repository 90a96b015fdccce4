"""What a checkpoint that training goes on from may hold: numbers and text, no code, and no settings of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from flexivid.metrics.weights_file import reason_of


def refuse_code(file: str | Path) -> None:
    """Look at a checkpoint before Lightning does; tensors are mapped, not read.

    Lightning's command line would also take over settings that a checkpoint brings (``hyper_parameters``), classes to
    import among them. Ours bring none.

    Args:
        file: A ``.ckpt`` in the zip format of ``torch.save``.

    Raises:
        ValueError: If it is damaged, holds more than plain data, or brings settings.

    Example:
        >>> import os, tempfile
        >>> file = tempfile.mkdtemp() + "/last.ckpt"
        >>> torch.save({"state_dict": {"a": os.getcwd}}, file)
        >>> try:
        ...     refuse_code(file)
        ... except ValueError as error:
        ...     print(str(error).replace(file, "last.ckpt")[:82])
        got checkpoint last.ckpt, which cannot be gone on from (it holds posix.getcwd, whi
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever the damaged bytes lead to
        raise ValueError(
            f"got checkpoint {file}, which cannot be gone on from ({reason_of(error)}); expected a .ckpt of a run; name"
            " another one"
        ) from error
    if not isinstance(content, dict) or content.get("hyper_parameters"):
        raise ValueError(
            f"got checkpoint {file}, which brings settings of its own; expected a .ckpt written by flexivid.train; name"
            " another one"
        )
