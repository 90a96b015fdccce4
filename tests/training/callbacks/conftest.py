"""A clock that the callbacks look at, and what they have logged."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


class Clock(Callback):
    """A clock that stands still but for so many seconds before each batch and in each step."""

    def __init__(self, *, wait=0.0, work=1.0):
        self.now, self.wait, self.work = 100.0, wait, work

    def perf_counter(self):
        return self.now

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.now += self.work

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.now += self.wait


@pytest.fixture
def set_clock(monkeypatch):
    """A function that makes the callbacks look at a clock."""

    def use(**seconds):
        clock = Clock(**seconds)
        for name in ("speed", "minutes"):
            monkeypatch.setattr(
                f"flexivid.training.callbacks.{name}.time", SimpleNamespace(perf_counter=clock.perf_counter)
            )
        return clock

    return use


@pytest.fixture
def scalars():
    """A function that reads what was logged: {tag: {step: value}}."""

    def read(folder):
        events = EventAccumulator(str(folder))
        events.Reload()
        return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}

    return read


@pytest.fixture
def noisy_module(make_module):
    """A new network gives zero at every budget; this one does not."""
    module = make_module()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module
