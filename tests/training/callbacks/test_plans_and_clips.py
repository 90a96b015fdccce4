"""What callbacks show: classes in turn, and the captions of clips where the network reads text."""

from types import SimpleNamespace

import pytest

from flexivid.data.clips.dataset import ClipDataset
from flexivid.data.clips.windows import ClipSettings
from flexivid.data.index.videos import Videos
from flexivid.evaluation.clips import ClipSet
from flexivid.training.callbacks import SampleVideos
from flexivid.training.callbacks.plans_and_clips import sample_conditions


def clips_of(captions):
    words = {"caption": captions} if captions else {}
    videos = Videos.of([f"{i}.mp4" for i in range(3)], num_frames=[8, 8, 8], **words)
    dataset = ClipDataset(videos, ClipSettings(num_frames=8))
    return ClipSet("videos", "train", dataset, videos.num_frames * 0 + range(3), ())


def test_captions_in_turn(text_model):
    conditions = sample_conditions(text_model, 4, lambda: clips_of(["a red ball", "a blue cube", "a ball"]))
    assert conditions.prompts == ("a red ball", "a ball", "a blue cube", "a red ball")  # scattered, then in turn
    assert conditions.text_tokens == 3


def test_a_network_without_text_looks_at_no_clips(model):
    conditions = sample_conditions(model, 4, lambda: pytest.fail("clips were looked for"))
    assert conditions.labels.tolist() == [0, 1, 2, 0]


def test_without_captions_samples_are_of_the_null_text(text_model, monkeypatch):
    monkeypatch.setattr("flexivid.training.callbacks.samples.training_clips", lambda *args, **options: clips_of(None))
    with pytest.warns(UserWarning, match="samples are of the null text: got videos without captions"):
        conditions = SampleVideos(num_videos=2)._conditions_of(SimpleNamespace(), text_model)
    assert len(conditions) == 2
    assert conditions.text_tokens == 0
