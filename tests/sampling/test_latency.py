"""Seconds are measured once for all they depend on, then read from the cache."""

import json

import pytest

from flexivid import Schedule, Step
from flexivid.budget.allowance import Amount
from flexivid.patching.shapes import Size3
from flexivid.runtime.paths import cache_folder
from flexivid.sampling import latency
from flexivid.sampling.conditions import conditions_for
from flexivid.sampling.generate import generate_batches
from flexivid.sampling.latency import batches_of, known_latency, latency_key, measure_latency
from flexivid.sampling.plan import allowance_of
from flexivid.sampling.settings import Sampling

GUIDANCE = [{}, {"guidance_scale": 2.0}, {"guidance_scale": 2.0, "guide_mode": "2x4x4"}]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path))


@pytest.fixture
def measured(monkeypatch):
    """Batches of the measurements that are made, of every step."""
    made, real = [], measure_latency

    def counted(model, settings, batches):
        made.append(list(batches.values()))
        return real(model, settings, batches)

    monkeypatch.setattr(latency, "measure_latency", counted)
    monkeypatch.setattr(latency, "ENOUGH_SECONDS", 0)
    return made


def test_measured_once(model, measured):
    settings = Sampling(batch_size=4).filled(model)
    first = known_latency(model, settings, 100)
    assert list(map(str, first)) == ["1x2x2", "2x4x4"]
    assert min(first.values()) > 0
    assert known_latency(model, settings, 50) == first
    assert measured == [[4, 32]]  # as many tokens, as sampling has it


def test_measured_again_for_what_it_depends_on(model, build_model, measured):
    settings = Sampling().filled(model)
    known_latency(model, settings, 2)
    known_latency(model, settings, 3)
    known_latency(model, settings._replace(size=Size3(2, 8, 8)), 2)
    known_latency(build_model(depth=1), settings, 2)
    assert measured == [[2, 2], [3, 3], [2, 2], [2, 2]]
    assert len(list(cache_folder("latency").glob("*.json"))) == 4


def test_key_tells_compiled_from_eager(model):
    settings = Sampling().filled(model)
    batches = batches_of(model, settings, 2)
    plain = latency_key(model, settings, batches)
    model.compile()
    assert (plain["compiled"], latency_key(model, settings, batches)["compiled"]) == (False, True)


def test_damaged_cache_is_measured_again(model, measured):
    settings = Sampling().filled(model)
    known_latency(model, settings, 1)
    (file,) = cache_folder("latency").iterdir()
    for damage in ("{", json.dumps({"seconds": {"1x2x2": 1.0}})):
        file.write_text(damage)
        known_latency(model, settings, 1)
    assert measured == [[1, 1]] * 3
    assert not list(cache_folder("latency").glob("*.part"))


@pytest.mark.parametrize("guidance", GUIDANCE, ids=["none", "ordinary", "weak"])
@pytest.mark.parametrize("packing", ["auto", "always", "never"])
@pytest.mark.parametrize("num_videos", [1, 3, 9])
def test_calls_that_are_timed_are_as_large_as_those_of_sampling(model, guidance, packing, num_videos):
    options = {"precision": "fp32", "batch_size": 4, "packing": packing, **guidance}
    settings, calls, conditions = Sampling(**options).filled(model), [], conditions_for(model, num_videos)
    model.register_forward_pre_hook(lambda module, args: calls.append((len(args[0]), str(args[3]))))

    def made_by(work):
        calls.clear()
        work()
        return set(calls)

    timed = batches_of(model, settings, num_videos)
    assert {step.plain for step in timed} == {Step(mode) for mode in model.config.modes}
    for step, count in timed.items():
        made = generate_batches(model, Schedule([step]), settings, conditions=conditions)
        sampled = made_by(lambda made=made: list(made))
        largest = max(size for size, _ in sampled)
        one = made_by(lambda step=step, count=count: measure_latency(model, settings, {step: count}))
        assert one == {call for call in sampled if call[0] == largest}


def test_the_work_of_the_solver_is_in_it(model, monkeypatch):
    settings = Sampling(solver="unipc").filled(model)
    monkeypatch.setattr(latency, "_seconds", lambda make, device: 0.5)
    for step, seconds in known_latency(model, settings, 2).items():
        assert seconds == pytest.approx(0.5 / 2 + 0.5 / latency.SOLVER_STEPS / 2), step


def test_seconds_of_full_compute_are_those_of_guided_native_steps(model):
    settings = Sampling(guidance_scale=2.0, guide_mode="2x4x4", num_inference_steps=4).filled(model)
    seconds = {"1x2x2+1x2x2": 7, "1x2x2": 4, "1x2x2+2x4x4": 5, "2x4x4+2x4x4": 2, "2x4x4": 1.5}
    steps = batches_of(model, settings, 1)
    assert set(map(str, steps)) == set(seconds)
    allowance = allowance_of(model, settings, Amount(20, "seconds"), {step: seconds[str(step)] for step in steps})
    assert allowance.share(14 * 10**6) == 0.5
