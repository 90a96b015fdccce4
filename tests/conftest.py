"""Every test leaves the random generators as it found them, and no test touches the user's cache folder."""

import os
import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def keep_random_state():
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


@pytest.fixture
def models_folder(tmp_path, monkeypatch):
    """Where shipped models are looked for in this test, instead of in the package; empty at first."""
    from flexivid.model import shipped

    folder = tmp_path / "package" / "models"
    folder.mkdir(parents=True)
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache_folder(tmp_path_factory):
    before = os.environ.get("FLEXIVID_CACHE")
    os.environ["FLEXIVID_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("FLEXIVID_CACHE")
    if before is not None:
        os.environ["FLEXIVID_CACHE"] = before
