"""Small networks, with random weights everywhere: a new one is the identity in every block and gives zero."""

import pytest
import torch

from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT

SMALL = {"width": 24, "depth": 2, "num_heads": 2, "num_classes": 3}


@pytest.fixture
def make_model():
    """A function that builds a small FlexiDiT; ``awake`` = zero-initialised weights are made random too."""

    def make(*, awake=True, **changes):
        torch.manual_seed(0)
        model = FlexiDiT(FlexiDiTConfig(**{**SMALL, **changes}))
        if awake:
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
        return model

    return make


@pytest.fixture
def make_batch():
    """A function that draws a latent and times for a batch of two."""

    def make(size=(4, 8, 8), channels=3):
        generator = torch.Generator().manual_seed(1)
        return torch.randn(2, channels, *size, generator=generator), torch.rand(2, generator=generator)

    return make
