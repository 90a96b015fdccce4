"""Work of all ranks: what fails is told in words, what Python does to stop is not caught."""

from __future__ import annotations

import pytest

from flexivid.runtime.distributed import FailedRankError, gathered, on_all_ranks


def fail(error):
    raise error


def test_one_rank_is_alone():
    assert gathered({"a": 1}) == [{"a": 1}]
    assert on_all_ranks(lambda: None) is None


@pytest.mark.parametrize(("error", "words"), [(OSError("disk full"), "disk full"), (KeyError(), r"KeyError\(\)")])
def test_any_failure_is_told(error, words):
    with pytest.raises(FailedRankError, match=words) as told:
        on_all_ranks(lambda: fail(error))
    assert told.value.__cause__ is error


def test_an_interruption_passes():
    with pytest.raises(KeyboardInterrupt):
        on_all_ranks(lambda: fail(KeyboardInterrupt()))
