"""How programs start: libraries are imported without the garbage collector. Imports no torch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def swift_imports() -> Iterator[None]:
    """Import large libraries without garbage collection, and keep what they made out of all later ones.

    Torch and Lightning make some 600,000 objects that live as long as the program, and every full collection on the
    way walks them for nothing: a quarter of the time of the imports. Where torch is there already, or the collector
    is off, nothing is changed.

    Example:
        >>> with swift_imports():
        ...     import torch
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
