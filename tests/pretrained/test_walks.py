"""Whatever users do in whatever order, the native mode is that of a model which never saw flexivid, bit for bit."""

import pytest

from tests.pretrained.walks import OPERATIONS, Walk, compile_in_place

NAMES = ["wan2.1", "ltx", "flexidit"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_twenty_operations_in_random_order(name, seed, tmp_path) -> None:
    walk = Walk(name, seed, tmp_path)
    for _ in range(20):
        walk.step(OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(2))
def test_twenty_operations_around_a_compilation(name, seed, tmp_path) -> None:
    walk = Walk(name, seed, tmp_path)
    for _ in range(8):
        walk.step(OPERATIONS)
    walk.step([compile_in_place])
    for _ in range(11):
        walk.step(OPERATIONS)
