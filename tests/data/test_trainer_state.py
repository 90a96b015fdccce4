"""The batches of a run follow from where its trainer stands."""

from types import SimpleNamespace

import numpy as np
import pytest

from flexivid.data.clips.trainer_state import Run


def trainer(**changes):
    settings = {"global_rank": 0, "world_size": 1, "global_step": 0, "accumulate_grad_batches": 1, "max_steps": -1}
    return SimpleNamespace(
        **{**settings, "max_epochs": 3, "val_check_interval": 1.0, "overfit_batches": 0, "log_dir": "runs", **changes}
    )


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 4),
        ({"world_size": 2}, 2),
        ({"accumulate_grad_batches": 3}, 6),
        ({"max_steps": 7, "max_epochs": -1, "accumulate_grad_batches": 2}, 14),
        ({"max_steps": 7, "max_epochs": -1, "val_check_interval": 20}, 20),
    ],
)
def test_length_of_an_epoch(changes, steps):
    assert Run(trainer(**changes)).num_steps(10, batch_size=3) == steps


@pytest.mark.parametrize("buckets", [[np.arange(10)], [np.arange(6), np.arange(6, 10)]])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_go_on_where_the_trainer_stands(buckets, accumulate):
    def batches(**changes):
        options = {"max_epochs": -1, "max_steps": 6, "accumulate_grad_batches": accumulate, **changes}
        return list(Run(trainer(**options)).batches(buckets, lambda step: 2 + step % 2, seed=0, epoch_size=2))

    whole = batches()
    assert batches(global_step=4)[: 2 * accumulate] == whole[4 * accumulate :]
    assert batches(global_step=4, overfit_batches=2) == whole
