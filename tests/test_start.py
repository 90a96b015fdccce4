"""Programs start without the garbage collector, and give it back."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from flexivid.runtime.start import swift_imports

FIRST_IMPORT = """
import gc, sys
from flexivid.runtime.start import swift_imports
collections = []
gc.callbacks.append(lambda phase, facts: collections.append(phase))
try:
    with swift_imports():
        assert not gc.isenabled()
        collections.clear()
        import torch
        assert not collections
        if len(sys.argv) > 1:
            raise ImportError(sys.argv[1])
except ImportError as error:
    print(error)
assert gc.isenabled() and gc.get_freeze_count() > 100_000
"""


@pytest.mark.parametrize("broken", [False, True])
def test_the_first_import_is_not_collected_and_the_collector_comes_back(broken):
    words = [sys.executable, "-c", FIRST_IMPORT, *(["no such library"] if broken else [])]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == ("no such library" if broken else "")


def test_where_torch_is_there_the_collector_is_left_alone():
    import torch  # noqa: F401

    frozen = gc.get_freeze_count()
    with swift_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_a_collector_that_is_off_stays_off(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    gc.disable()
    try:
        with swift_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
