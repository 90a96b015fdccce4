"""Results of different protocols are not compared silently; reference features are computed once for each protocol."""

import json
import os

import pytest
import torch
from safetensors import safe_open

from flexivid.metrics.protocol import NOT_OF_REFERENCE, Protocol, Result, compare, reference_features, reference_file

PROTOCOL = Protocol("fvd[motion]", "0f3a", "64x64 bilinear", 16, 64, 64, 1, 8.0, 2048, 3, "9c1e", "val", 7, "{}")


def changed(name):
    value = getattr(PROTOCOL, name)
    return PROTOCOL._replace(**{name: value + "x" if isinstance(value, str) else value + 1})


@pytest.mark.parametrize("name", Protocol._fields)
def test_every_field_forbids_comparison_and_most_mean_another_reference(name):
    a, b = Result(PROTOCOL, 10.0, 9.0, 11.0), Result(changed(name), 8.0, 7.0, 9.0)
    with pytest.raises(ValueError, match=f"different protocols.*{name} .* and .*evaluate again"):
        compare(a, b)
    assert (changed(name).key() == PROTOCOL.key()) == (name in NOT_OF_REFERENCE)


def test_a_protocol_survives_json():
    again = Protocol(**json.loads(json.dumps(PROTOCOL._asdict())))
    assert again == PROTOCOL
    assert again.key() == PROTOCOL.key()
    assert again.label == "fvd[motion]2048_16f"


def test_a_difference_is_certain_only_outside_both_intervals():
    one, near, far = (Result(PROTOCOL, value, value - 3, value + 3) for value in (10.0, 14.0, 15.0))
    assert compare(one, near).verdict == "tied"
    assert compare(one, far).verdict == "worse"
    assert compare(far, one).verdict == "better"
    assert compare(far, one).difference == -5


@pytest.fixture
def count_calls():
    calls = []

    def compute():
        calls.append(1)
        return torch.arange(12.0).view(3, 4)

    compute.calls = calls
    return compute


def test_features_are_computed_once_for_each_protocol(count_calls, monkeypatch, tmp_path):
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path))
    first, second = (reference_features(PROTOCOL, count_calls) for _ in range(2))
    assert torch.equal(first, second)
    assert len(count_calls.calls) == 1
    reference_features(PROTOCOL._replace(num_videos=64), count_calls)
    assert len(count_calls.calls) == 1
    reference_features(PROTOCOL._replace(extractor_fingerprint="other"), count_calls)
    assert len(count_calls.calls) == 2
    assert (
        sorted(path.suffix for path in reference_file(PROTOCOL).parent.iterdir()) == [".safetensors"] * 2
    )  # nothing unfinished
    with safe_open(reference_file(PROTOCOL), "pt") as file:
        assert Protocol(**json.loads(file.metadata()["protocol"])) == PROTOCOL


def test_a_damaged_file_is_told_and_replaced(count_calls, tmp_path):
    reference_features(PROTOCOL, count_calls, tmp_path)
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="cannot be read .* are made again"):
        features = reference_features(PROTOCOL, count_calls, tmp_path)
    assert torch.equal(features, torch.arange(12.0).view(3, 4))
    reference_features(PROTOCOL, count_calls, tmp_path)
    assert len(count_calls.calls) == 2


def test_a_folder_that_cannot_be_written_loses_nothing(count_calls, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be written .* set FLEXIVID_CACHE"):
        features = reference_features(PROTOCOL, count_calls, tmp_path / "file" / "reference")
    assert features.shape == (3, 4)


@pytest.mark.parametrize("features", [torch.zeros(2, 4), torch.full((3, 4), torch.nan)])
def test_wrong_features_are_refused_and_not_kept(features, tmp_path):
    with pytest.raises(ValueError, match="expected finite ones of 3 videos"):
        reference_features(PROTOCOL, lambda: features, tmp_path)
    assert os.listdir(tmp_path) == []
