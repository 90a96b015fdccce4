"""What programs do as they start: import fast, keep freed memory, print only warnings that help, take one seed.

Imports no torch.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
WARNINGS = (  # (start of the message, module that it is attributed to), regular expressions
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", r"lightning\."),  # Lightning's use of torch
    (r"`torch_dtype` is deprecated", r"diffusers\."),  # the name that works with all versions of diffusers from 0.36 on
    (r"Precision .* is not supported by the model summary", r"lightning\."),  # that summary is not shown
    (r"Found \d+ module\(s\) in eval mode at the start of training", r"lightning\."),  # a teacher, which has no dropout
    (r"Total length of `.*` across ranks is zero", r"lightning\."),  # there is nothing to validate on
    (r"Detected pickle protocol \d+ in the checkpoint", r"torch\."),  # then torch refuses it, and we say so in a line
)
LOGS = {  # logger: parts of messages that are dropped
    "xformers": ("can't load C++/CUDA extensions",),  # diffusers checks for xformers, and works without
    "transformers": ("`torch_dtype` is deprecated",),  # diffusers' use of transformers
    "lightning.pytorch.utilities.rank_zero": ("litlogger", "litmodels", "TPU available: False"),  # advertisements
}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's numbers of the settings, see mallopt(3)
KEPT_BYTES, LARGEST_BLOCK = 2**31 - 1, 2**30


def keep_freed_memory() -> bool:
    """Let the C library reuse freed memory instead of returning it to the system, and say whether it can.

    With glibc's defaults every large tensor of a CPU is new memory, which the system must clear page by page: up to
    half of the time of a forward pass. Nothing changes where users have settings of their own (``MALLOC_...``,
    ``GLIBC_TUNABLES``) or where the C library is another one.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ) or os.name != "posix":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


@contextmanager
def swift_imports() -> Iterator[None]:
    """Import large libraries with the garbage collector off, and exempt their objects from all later collections.

    Torch and Lightning make some 600,000 objects that live as long as the program. Collections during the import walk
    them in vain, which takes a quarter of its time. Nothing changes if torch is imported already or the collector is
    off.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Drop the messages that ``WARNINGS`` and ``LOGS`` list, and no others, while the block runs.

    Warnings of this package are one line, without the source code that they come from.
    """
    with warnings.catch_warnings(), ExitStack() as stack:
        stack.callback(setattr, warnings, "formatwarning", warnings.formatwarning)
        warnings.formatwarning = partial(_formatted, warnings.formatwarning)
        for message, module in WARNINGS:
            warnings.filterwarnings("ignore", message, module=module)
        for name, parts in LOGS.items():
            logger, silence = logging.getLogger(name), partial(_lacks, parts)
            logger.addFilter(silence)
            stack.callback(logger.removeFilter, silence)
        yield


def seed_or_global(seed: int | None) -> int:
    """Return a seed, or else that of ``--seed_everything`` (Lightning's ``seed_everything``), or else 0.

    So one number drives everything random in a training, and a part that names a seed of its own keeps it.
    """
    return int(os.environ.get("PL_GLOBAL_SEED") or 0) if seed is None else seed


def _formatted(
    usual: Callable[..., str], message: object, category: object, filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as it is printed, ``usual`` for those of other packages."""
    if Path(filename).is_relative_to(PACKAGE):
        return f"warning: {message}\n"
    return usual(message, category, filename, lineno, line)


def _lacks(parts: tuple[str, ...], record: logging.LogRecord) -> bool:
    return not any(part in record.getMessage() for part in parts)
