"""Seconds are measured once for all they depend on, then read from the cache."""

import json

import pytest

from flexivid import PatchMode, Step
from flexivid.runtime.paths import cache_folder
from flexivid.sampling import latency
from flexivid.sampling.generate import generate
from flexivid.sampling.latency import batches_of, known_latency, latency_key, measure_latency
from flexivid.sampling.settings import Sampling

GUIDANCE = [{}, {"guidance_scale": 2.0}, {"guidance_scale": 2.0, "guide_mode": "2x4x4"}]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path))


@pytest.fixture
def measured(monkeypatch):
    """Batches of the measurements that are made, of every mode."""
    made, real = [], measure_latency

    def counted(model, settings, batches):
        made.append(list(batches.values()))
        return real(model, settings, batches, repeats=1)

    monkeypatch.setattr(latency, "measure_latency", counted)
    return made


def test_measured_once(model, measured):
    settings = Sampling(batch_size=4).filled(model)
    first = known_latency(model, settings, 100)
    assert set(first) == {PatchMode("1x2x2"), PatchMode("2x4x4")}
    assert min(first.values()) > 0
    assert known_latency(model, settings, 50) == first
    assert measured == [[4, 32]]  # as many tokens, as sampling has it


def test_measured_again_for_what_it_depends_on(model, build_model, measured):
    settings = Sampling().filled(model)
    known_latency(model, settings, 2)
    known_latency(model, settings, 3)
    known_latency(model, settings._replace(size=(2, 8, 8)), 2)
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
    timed = batches_of(model, Sampling(**options).filled(model), num_videos)
    if packing == "always" and guidance == GUIDANCE[1]:
        assert timed[PatchMode("1x2x2")] == 2 * min(num_videos, 4)

    def largest(mode, **changes):
        sizes = []
        handle = model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
        generate(model, schedule=f"1x{mode}", num_videos=num_videos, **options | changes)
        handle.remove()
        return max(sizes)

    for mode in model.config.modes:
        two_modes = str(mode) != guidance.get("guide_mode", str(mode))
        assert largest(mode) in ((timed[mode], 2 * timed[mode]) if two_modes else (timed[mode],))
    alone = [call for call in timed if isinstance(call, Step)]
    assert {call.mode for call in alone} == {m for m in model.config.modes if timed[m] > largest(m, guidance_scale=1.0)}
    assert [timed[call] for call in alone] == [largest(call.mode, guidance_scale=1.0) for call in alone]
