"""What samples of an evaluation should show where the model reads text: the captions of the real clips, in their order.

So samples and real clips show the same things, and the distance is not one of subjects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flexivid.evaluation.clips import ClipSet
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.conditions import Conditions, conditions_for, read_prompts


def evaluation_conditions(
    model: FlexiDiT,
    num_videos: int,
    clips: ClipSet,
    *,
    labels: Sequence[int] | None = None,
    prompts_file: str | None = None,
) -> Conditions:
    """Classes in turn, and prompts where the model reads text: captions of the clips, or lines of a file, in turn.

    Raises:
        ValueError: If the model reads text and the clips have no captions, or it reads none and there is a file.
    """
    if prompts_file is not None and not model.config.text_channels:
        raise ValueError(f"got --prompts-file {prompts_file} for a model without text; expected none; leave it out")
    prompts, source = None, ""
    if prompts_file is not None:
        prompts, source = read_prompts(None, prompts_file), "lines of a file"
    elif model.config.text_channels and clips.dataset.has_captions:
        prompts, source = [clips.caption(number) for number in range(len(clips))], "captions of the reference"
        classes = [clips.label(number) for number in range(len(clips))]
        labels = classes if labels is None and model.config.num_classes and min(classes) >= 0 else labels
    elif model.config.text_channels and not model.config.num_classes:
        raise ValueError(
            f"got {clips.root} without captions for a model that reads text; expected a caption a clip; name prompts"
            " with --prompts-file, or other real videos with --reference"
        )
    conditions = conditions_for(model, num_videos, labels=labels, prompts=prompts)
    return replace(conditions, source=source)
