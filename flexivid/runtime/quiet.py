"""What libraries say at every start that nobody who runs a program can do anything about. Imports no torch.

Each line names who says it and why it does not matter here. Whatever else a library says is heard.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

WARNINGS = (  # (start of the message, module that is blamed for it), regular expressions
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", r"lightning\."),  # Lightning's own use of torch
    (r"`torch_dtype` is deprecated", r"diffusers\."),  # the name that works with all versions of diffusers from 0.36 on
    (r"Precision .* is not supported by the model summary", r"lightning\."),  # of a summary that is not shown
    (r"Found \d+ module\(s\) in eval mode at the start of training", r"lightning\."),  # a teacher, which has no dropout
    (r"Total length of `.*` across ranks is zero", r"lightning\."),  # there is nothing to validate on
    (r"Detected pickle protocol \d+ in the checkpoint", r"torch\."),  # and then refuses it, which is told in a line
)
LOGS = {  # logger: parts of what it says
    "xformers": ("can't load C++/CUDA extensions",),  # diffusers asks whether xformers is there, and does without
    "transformers": ("`torch_dtype` is deprecated",),  # diffusers' use of transformers
    "lightning.pytorch.utilities.rank_zero": ("litlogger",),  # an advertisement
}


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Leave that out while a program runs; before and after, nothing is changed.

    Example:
        >>> with quiet_libraries():
        ...     logging.getLogger("xformers").warning("xFormers can't load C++/CUDA extensions. xFormers was built for")
    """
    filters = {name: _Silence(parts) for name, parts in LOGS.items()}
    with warnings.catch_warnings():
        for message, module in WARNINGS:
            warnings.filterwarnings("ignore", message, module=module)
        for name, one in filters.items():
            logging.getLogger(name).addFilter(one)
        try:
            yield
        finally:
            for name, one in filters.items():
                logging.getLogger(name).removeFilter(one)


class _Silence(logging.Filter):
    """Drops records that hold one of some texts."""

    def __init__(self, parts: tuple[str, ...]) -> None:
        super().__init__()
        self._parts = parts

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(part in record.getMessage() for part in self._parts)
