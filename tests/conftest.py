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


@pytest.fixture(autouse=True, scope="session")
def own_cache_folder(tmp_path_factory):
    before = os.environ.get("FLEXIVID_CACHE")
    os.environ["FLEXIVID_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("FLEXIVID_CACHE")
    if before is not None:
        os.environ["FLEXIVID_CACHE"] = before
