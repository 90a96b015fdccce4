"""Every test leaves the random generators as it found them, so that no test depends on its neighbours."""

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
