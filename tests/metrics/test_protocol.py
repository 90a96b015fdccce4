"""Results of different protocols are not compared silently; reference features are computed once for each protocol."""

import json

import pytest
import torch
from safetensors import safe_open

from flexivid.metrics.protocol import NOT_OF_REFERENCE, Protocol, check_alike, reference_features, reference_file

PROTOCOL = Protocol("fvd[motion]", "0f3a", "64x64 bilinear", 16, 64, 64, 1, 8.0, 2048, 3, "9c1e", "val", 7, "{}")


def changed(name):
    value = getattr(PROTOCOL, name)
    return PROTOCOL._replace(**{name: value + "x" if isinstance(value, str) else value + 1})


@pytest.mark.parametrize("name", Protocol._fields)
def test_every_field_forbids_comparison_and_most_mean_another_reference(name):
    with pytest.raises(ValueError, match=f"different protocols.*{name} .* and .*evaluate again"):
        check_alike(PROTOCOL, changed(name))
    assert (changed(name).key() == PROTOCOL.key()) == (name in NOT_OF_REFERENCE)


def test_a_protocol_survives_json():
    again = Protocol(**json.loads(json.dumps(PROTOCOL._asdict())))
    assert again == PROTOCOL
    assert again.key() == PROTOCOL.key()
    assert again.label == "fvd[motion]2048_16f"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The folder of reference features."""
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path))
    return tmp_path / "reference"


@pytest.fixture
def count_calls():
    calls = []

    def compute():
        calls.append(1)
        return torch.arange(12.0).view(3, 4)

    compute.calls = calls
    return compute


def test_features_are_computed_once_for_each_protocol(count_calls, cache):
    first, second = (reference_features(PROTOCOL, count_calls) for _ in range(2))
    assert torch.equal(first, second)
    assert len(count_calls.calls) == 1
    reference_features(PROTOCOL._replace(num_videos=64), count_calls)
    assert len(count_calls.calls) == 1
    reference_features(PROTOCOL._replace(extractor_fingerprint="other"), count_calls)
    assert len(count_calls.calls) == 2
    assert sorted(path.suffix for path in cache.iterdir()) == [".safetensors"] * 2  # nothing unfinished
    with safe_open(reference_file(PROTOCOL), "pt") as file:
        assert Protocol(**json.loads(file.metadata()["protocol"])) == PROTOCOL


def test_a_damaged_file_is_told_and_replaced(count_calls, cache):
    reference_features(PROTOCOL, count_calls)
    file = next(cache.iterdir())
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="cannot be read .* are made again"):
        features = reference_features(PROTOCOL, count_calls)
    assert torch.equal(features, torch.arange(12.0).view(3, 4))
    reference_features(PROTOCOL, count_calls)
    assert len(count_calls.calls) == 2


def test_a_folder_that_cannot_be_written_loses_nothing(count_calls, cache):
    cache.write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be written .* set FLEXIVID_CACHE"):
        features = reference_features(PROTOCOL, count_calls)
    assert features.shape == (3, 4)


@pytest.mark.parametrize("features", [torch.zeros(2, 4), torch.full((3, 4), torch.nan)])
def test_wrong_features_are_refused_and_not_kept(features, cache):
    with pytest.raises(ValueError, match="expected finite ones of 3 videos"):
        reference_features(PROTOCOL, lambda: features)
    assert not cache.exists()
