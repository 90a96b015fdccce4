"""Programs drop messages that nobody who runs them can act on, and no others; freed memory is used again."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
import warnings

import pytest

from flexivid.runtime import start
from flexivid.runtime.errors import plain_errors
from flexivid.runtime.start import LOGS, keep_freed_memory, quiet_libraries

SAID = {  # by whom: what
    "lightning.pytorch.utilities._pytree": "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(",
    "lightning.pytorch.utilities.model_summary": "Precision bf16-mixed is not supported by the model summary.",
    "diffusers.utils.deprecation_utils": "`torch_dtype` is deprecated and will be removed in version 1.0.0.",
    "torch._weights_only_unpickler": "Detected pickle protocol 4 in the checkpoint, which was not",
}


def warn(module, message):
    warnings.warn_explicit(message, UserWarning, "file.py", 1, module=module)


def test_warnings_are_left_out_by_message_and_module():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with plain_errors():
            for module, message in SAID.items():
                warn(module, message)
                warn(module, f"something else: {message}")
                warn("flexivid.data.module", message)
        warn("lightning.pytorch.utilities._pytree", "`isinstance(treespec, LeafSpec)` is deprecated")  # as before
    assert len(heard) == 2 * len(SAID) + 1


def test_own_warnings_are_one_line_and_others_as_python_prints_them():
    usual = warnings.formatwarning
    with quiet_libraries():
        own = warnings.formatwarning(UserWarning("got 3; expected 4"), UserWarning, start.__file__, 1)
        other = warnings.formatwarning(UserWarning("got 3"), UserWarning, "file.py", 1)
    assert own == "warning: got 3; expected 4\n"
    assert other == usual(UserWarning("got 3"), UserWarning, "file.py", 1) != own
    assert warnings.formatwarning is usual


@pytest.mark.parametrize("name", LOGS)
def test_logs_are_left_out_by_message_and_only_meanwhile(name, caplog):
    logger = logging.getLogger(name)
    with caplog.at_level("INFO", logger=name):
        with quiet_libraries():
            logger.warning("anything: %s", LOGS[name][0])
            logger.warning("something else")
        with pytest.raises(ZeroDivisionError), quiet_libraries():
            1 / 0  # noqa: B018
        logger.warning(LOGS[name][0])
    assert [record.getMessage() for record in caplog.records] == ["something else", LOGS[name][0]]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
@pytest.mark.parametrize("is_kept", [True, False])
def test_freed_memory_is_used_again(is_kept):
    code = f"""
import resource
from flexivid.runtime.start import keep_freed_memory
if {is_kept}: assert keep_freed_memory()
for _ in range(20): bytearray(64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean)
    faults = int(run.stdout)
    assert (faults < 5 * (64 << 20) // 4096) == is_kept


def test_settings_of_the_user_are_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not keep_freed_memory()
