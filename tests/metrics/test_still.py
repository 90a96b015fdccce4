"""Pictures as videos that stand still: features of the repeated frame, under a name of their own."""

import torch

from flexivid.metrics.extractors.extractor import build_extractor, for_frames


def test_features_are_those_of_the_repeated_frame():
    motion = build_extractor("motion")
    still, picture = for_frames(motion, 1), torch.rand(2, 3, 1, 16, 16) * 2 - 1
    torch.testing.assert_close(still(picture), motion(picture.expand(-1, -1, motion.min_frames, -1, -1)))
    assert (still(picture[:1]) - still(picture[1:])).abs().max() > 1e-3


def test_it_is_named_and_videos_are_as_ever():
    motion = build_extractor("motion")
    still = for_frames(motion, 1)
    assert (still.metric_name, still.min_frames, still.num_features) == ("fvd[motion-still]", 1, 96)
    assert still.fingerprint != motion.fingerprint
    assert still.preprocessing.startswith("the frame 4 times; ")
    assert all(for_frames(motion, frames) is motion for frames in (2, 4, 16))  # too short ones are refused
    assert for_frames(still, 1) is still
