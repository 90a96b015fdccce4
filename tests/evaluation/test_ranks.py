"""Who does which share: torchrun's words, devices that exist, and ranks that wait for each other."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from flexivid.evaluation.ranks import Ranks, meet
from flexivid.runtime.ranks import devices_of, from_environment

MEETING = """
import sys, time
from flexivid.evaluation.ranks import meet
from flexivid.runtime.ranks import from_environment
ranks = from_environment()
for number in range(2):
    time.sleep(0.3 * ranks.rank)
    open(f"{sys.argv[1]}/{number}_{ranks.rank}", "w").close()
    meet(ranks)
    import os
    assert {f"{number}_{rank}" for rank in range(ranks.size)} <= set(os.listdir(sys.argv[1]))
"""


def test_torchrun_says_who_this_is(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert from_environment() == Ranks(0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert from_environment() == Ranks(3, 8)
    assert not from_environment().first


def test_one_process_waits_for_nobody():
    meet(Ranks(0, 1))
    assert not torch.distributed.is_initialized()


def test_devices_must_be_there():
    assert devices_of(3, "cpu") == [torch.device("cpu")] * 3
    with pytest.raises(ValueError, match=r"got 0 devices .*; expected 1 or more of a kind; change --devices"):
        devices_of(0, "cpu")
    with pytest.raises(ValueError, match=r"got 2 devices and device cpu:0; expected"):
        devices_of(2, "cpu:0")


@pytest.mark.slow
def test_ranks_meet(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", MEETING, str(tmp_path)]
    ranks = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
