"""The mode of a step depends on (seed, step) alone, and follows the probabilities."""

from __future__ import annotations

from collections import Counter

import pytest

from flexivid import PatchMode
from flexivid.training.modes import ModeChoice, Phase, mode_at

MODES = (PatchMode("2x4x4"), PatchMode("4x4x4"), PatchMode("4x8x8"))
CHOICE = ModeChoice(phases=[Phase(0.25, {"4x8x8": 1}), Phase(1.0, {"2x4x4": 3, "4x8x8": 1})])


def test_is_a_pure_function_of_seed_and_step():
    once = [mode_at(step, 0.5, CHOICE, MODES) for step in range(50)]
    again = [mode_at(step, 0.5, CHOICE, MODES) for step in reversed(range(50))]
    assert once == again[::-1]
    other = ModeChoice(phases=CHOICE.phases, seed=1)
    assert once != [mode_at(step, 0.5, other, MODES) for step in range(50)]


def test_frequencies_follow_the_probabilities():
    counts = Counter(mode_at(step, 0.9, CHOICE, MODES) for step in range(4000))
    assert counts[MODES[1]] == 0
    assert counts[MODES[0]] / 4000 == pytest.approx(0.75, abs=0.03)  # 4 deviations


def test_phases_end_where_they_say():
    assert {mode_at(step, 0.2499, CHOICE, MODES) for step in range(100)} == {MODES[2]}
    assert {mode_at(step, 0.25, CHOICE, MODES) for step in range(100)} == {MODES[0], MODES[2]}
    assert mode_at(3, 1.0, CHOICE, MODES) in MODES


def test_without_phases_all_modes_are_alike():
    counts = Counter(mode_at(step, 0.0, ModeChoice(), MODES) for step in range(3000))
    assert all(abs(counts[mode] - 1000) < 120 for mode in MODES)


def test_native_and_weak_stand_for_modes_of_any_network():
    phase = Phase(1.0, {"native": 0.65, "weak": 0.35})
    for names in (("2x4x4", "4x8x8"), ("1x2x2", "2x2x2", "1x4x4", "2x4x4")):
        modes = tuple(map(PatchMode, names))
        assert phase.weights(modes) == pytest.approx([0.65] + [0.35 / (len(modes) - 1)] * (len(modes) - 1))
        counts = Counter(mode_at(step, 0.0, ModeChoice([phase]).check(modes), modes) for step in range(4000))
        assert counts[modes[0]] / 4000 == pytest.approx(0.65, abs=0.03)  # 4 deviations
        assert counts.keys() == set(modes)


def test_weights_of_a_mode_add_up():
    assert Phase(1.0, {"native": 1, "2x4x4": 2, "weak": 4, "4x8x8": 3}).weights(MODES) == [3, 2, 5]
    assert Phase(1.0, {"native": 1, "weak": 4}).weights(MODES[:1]) == [1]  # a network without weak modes trains too


def test_where_all_modes_are_weak_none_is_native():
    for name in ("native", "weak"):
        with pytest.raises(ValueError, match=f"got patch mode '{name}'; expected FRAMESxROWSxCOLUMNS"):
            ModeChoice([Phase(1.0, {name: 1})]).check(MODES, groups=False)


def test_times_of_a_mode():
    choice = ModeChoice(time_ranges={"4x8x8": (0.6, 1.0)}, time_shifts={"4x4x4": 3.0}).check(MODES)
    assert [choice.time_range(mode) for mode in MODES] == [(0.0, 1.0), (0.0, 1.0), (0.6, 1.0)]
    assert [choice.time_shift(mode, 2.0) for mode in MODES] == [2.0, 3.0, 2.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_ranges": {"1x9x9": (0.0, 0.5)}}, "got a time range for mode 1x9x9; expected the network's modes"),
        ({"time_ranges": {"2x4x4": (0.5, 0.5)}}, r"got 2x4x4=\(0.5, 0.5\); expected 0 <= low < high <= 1; "),
        ({"time_shifts": {"1x9x9": 2.0}}, "got a time shift for mode 1x9x9; expected the network's modes"),
        ({"time_shifts": {"2x4x4": 0.0}}, r"got 2x4x4=0.0; expected more than 0; change mode_choice\.time_s"),
    ],
)
def test_refuses_times_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        ModeChoice(**settings).check(MODES)


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([Phase(0.5, {"2x4x4": 1})], "end at 1"),
        ([Phase(1.0, {"1x9x9": 1})], "1x9x9"),
        ([Phase(1.0, {"1x9x9": 1})], "change mode_choice.phases (native and weak fit any modes) or network.modes"),
        ([Phase(1.0, {"2x4x4": 0})], "not all 0"),
        ([Phase(1.0, {"native": 0, "weak": 0})], "not all 0"),
        ([Phase(1.0, {"2x4x4": -1, "4x8x8": 2})], ">= 0"),
        ([Phase(0.7, {"2x4x4": 1}), Phase(0.3, {"2x4x4": 1}), Phase(1.0, {"2x4x4": 1})], "rising"),
    ],
)
def test_refuses_phases_that_make_no_sense(phases, words):
    with pytest.raises(ValueError, match="expected") as caught:
        ModeChoice(phases=phases).check(MODES)
    assert words in str(caught.value)


def test_batches_hold_equal_tokens():
    size = (8, 32, 32)
    sizes = [ModeChoice().batch_size(mode, size, MODES[0], 16, native_size=size) for mode in MODES]
    assert sizes == [16, 32, 128]
    assert ModeChoice().batch_size(MODES[0], size, MODES[2], 1, native_size=size) == 1
