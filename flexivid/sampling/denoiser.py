"""The network as a solver calls it: guided, in batches that suit the mode, each sample with its own step.

The solver calls a :class:`GuidedDenoiser` once for each step of a schedule. The output depends neither on how samples
are grouped nor on whether two branches of guidance share a call of the network, but for the rounding of kernels. Texts
are read at the first call that needs them, and then kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flexivid.budget.schedule import REUSE, Step
from flexivid.diffusion.guidance import Guidance
from flexivid.diffusion.windows import blend, cut
from flexivid.model.block import Packed
from flexivid.model.conditioning import Condition, Frames, TextKeys, join_texts
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import PatchMode, num_tokens
from flexivid.sampling.conditions import Conditions, take
from flexivid.sampling.options import Settings

PACKED_TOKENS = {"cpu": 512}  # of both branches: above, one call is no faster than two (bench_guidance.json)
PACKED_TOKENS_ELSEWHERE = 8192  # not measured: about what fills an accelerator
LARGEST_GROWTH = 8  # a weak mode's batch over the native one's

StepsAt = Callable[[int, Tensor], Sequence[Step]]  # (call, latents) -> the step of each sample
OnStep = Callable[[int, Any], None]  # (samples in the batch, the step that is done)


class GuidedDenoiser:
    """Outputs of the network for a batch of samples, call by call, with guidance where a step has a guide mode.

    Guidance is ``u + s (c - u)``, with c the step's mode under the condition and u the guide branch. Mixing outputs
    equals mixing noises or velocities: at fixed x all are affine.

    ``steps_at`` gives the step of each sample at a call; ``on_step`` is called after each step of some of the samples.
    The setting ``packing`` says whether both branches share a call: ``always``, ``never``, or ``auto`` where that was
    measured to be faster, while both are few tokens. With ``reads_both`` the texts of both branches are read at the
    first call, even if no step of it has guidance.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> from flexivid.sampling.options import Sampling
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4"), num_classes=3))
        >>> settings = Sampling(size=(2, 4, 4)).filled(model)
        >>> step = Step(*map(PatchMode, model.config.modes))
        >>> conditions = Conditions(torch.tensor([0, 2]))
        >>> denoise = GuidedDenoiser(model, settings, Guidance(2.0), conditions, steps_of([step]))
        >>> denoise(0, torch.zeros(2, 3, 2, 4, 4), torch.ones(2)).shape
        torch.Size([2, 3, 2, 4, 4])
    """

    last: Tensor  # output of the last call, which a step that reuses it repeats

    def __init__(
        self,
        model: FlexiDiT,
        settings: Settings,
        guidance: Guidance,
        conditions: Conditions,
        steps_at: StepsAt,
        on_step: OnStep | None = None,
        *,
        reads_both: bool = False,
    ) -> None:
        self._model, self._settings, self._guidance = model, settings, guidance
        self._conditions, self._steps_at, self._on_step = conditions, steps_at, on_step
        self._starts, self._reads_both = settings.window_starts, reads_both
        self._branches: list[Condition] = []  # read so far: what is shown, and what guidance leads away from

    def __call__(self, call: int, x: Tensor, time: Tensor) -> Tensor:
        """Output at a call for noisy latents (b, c, t, h, w) at times (b,); samples with the same step share calls."""
        steps, frames = list(self._steps_at(call, x)), x.shape[2]
        if len(self._starts) > 1:
            steps = [step for step in steps for _ in self._starts]
            x, time = self._cut(x), time.repeat_interleave(len(self._starts))
        parts, outputs = self._parts(steps, x.device), []
        for step, rows in parts:
            x_part, time_part, (shown, null) = x[rows], time[rows], self._conditions_of(step, rows, x.device)
            if step.mode is None:
                output = self._cut(self.last)[rows]
            elif step.guide_mode is None:
                output = self._model(x_part, time_part, shown, step.mode)
            else:
                if shares_call(step, self._settings, len(x_part), x.device):
                    mode = step.mode if step.guide_mode == step.mode else Packed(step.modes)
                    x_both, time_both = x_part.repeat(2, 1, 1, 1, 1), time_part.repeat(2)
                    output, guide = self._model(x_both, time_both, _join((shown, null)), mode).chunk(2)
                else:
                    output = self._model(x_part, time_part, shown, step.mode)
                    guide = self._model(x_part, time_part, null, step.guide_mode)
                output = guide + self._guidance.strength(step) * (output - guide)
            outputs.append(output)
            if self._on_step is not None and len(self._starts) == 1:
                self._on_step(len(output), step)
        self.last = _in_order(outputs, [rows for _, rows in parts])
        return self._blended(steps, frames) if len(self._starts) > 1 else self.last

    def _blended(self, steps: Sequence[Step], frames: int) -> Tensor:
        """Blend the outputs of windows into whole videos, report the steps, and remember the result for reuse."""
        self.last = blend(self.last, self._starts, frames)
        if self._on_step is not None:
            for step in dict.fromkeys(steps):
                self._on_step(steps.count(step) // len(self._starts), step)
        return self.last

    def _conditions_of(self, step: Step, rows: Any, device: torch.device) -> tuple[Condition, Condition]:
        """What samples that take a step are shown in its two branches."""
        if step.mode is None:
            return Condition(), Condition()
        shown, null = self._read(device, both=step.guide_mode is not None or self._reads_both)
        return take(shown, rows), take(shown if self._guidance.is_weak(step) else null, rows)

    def _read(self, device: torch.device, *, both: bool) -> tuple[Condition, Condition]:
        """Conditions of both branches for all samples, with their texts read; the second may be the first one."""
        frames = not self._settings.frame_guidance
        if not self._branches:
            self._branches.append(self._prepared(self._conditions.shown(device)))
        if both and len(self._branches) == 1:
            self._branches.append(self._prepared(self._conditions.null(self._model, device, frames=frames)))
        return self._branches[0], self._branches[-1]

    def _prepared(self, condition: Condition) -> Condition:
        """A condition as calls take it: text read once a sample, then repeated for each of its windows."""
        if self._model.config.text_channels:
            condition = self._model.prepare(condition, len(self._conditions))
        if len(self._starts) == 1:
            return condition
        rows = torch.arange(len(self._conditions)).repeat_interleave(len(self._starts))
        wide: Condition = take(condition._replace(frames=None), rows.to(condition.label.device))  # type: ignore[union-attr]
        frames = condition.frames
        return wide if frames is None else wide._replace(frames=Frames(*map(self._cut, frames)))

    def _cut(self, x: Tensor) -> Tensor:
        return cut(x, self._starts, self._settings.call_size.t) if len(self._starts) > 1 else x

    def _parts(self, steps: Sequence[Step], device: torch.device) -> list[tuple[Step, Any]]:
        """Samples that share a call: their step, and which of the batch they are."""
        kinds = list(dict.fromkeys(steps))
        if len(kinds) == 1:
            size = len(steps) if kinds[0] == REUSE else self._batch_of(kinds[0])
            return [(kinds[0], slice(start, start + size)) for start in range(0, len(steps), size)]
        indices = [torch.tensor([i for i, step in enumerate(steps) if step == kind]) for kind in kinds]
        return [
            (kind, rows)
            for kind, index in zip(kinds, indices, strict=True)
            for rows in index.to(device).split(self._batch_of(kind))
        ]

    def _batch_of(self, step: Step) -> int:
        return batch_of(step, self._settings.call_size, self._model.config.native, self._settings.batch_size)


def shares_call(step: Step, settings: Settings, count: int, device: torch.device) -> bool:
    """Whether both branches of a step of so many samples share a call."""
    if settings.packing != "auto":
        return settings.packing == "always"
    tokens = count * sum(num_tokens(settings.call_size, mode) for mode in step.modes)
    return tokens <= PACKED_TOKENS.get(device.type, PACKED_TOKENS_ELSEWHERE)


def steps_of(schedule: Sequence[Step]) -> StepsAt:
    """The same schedule for all samples."""
    return lambda call, x: [schedule[call]] * len(x)


def batch_of(mode_or_step: PatchMode | Step, size: tuple[int, int, int], native: PatchMode, base: int) -> int:
    """Samples in a call: as many as hold about the tokens of ``base`` native ones, up to eight times ``base``.

    The finer mode of a step decides.

    Example:
        >>> batch_of(PatchMode("4x8x8"), (8, 32, 32), PatchMode("2x4x4"), 16)
        128
    """
    modes = mode_or_step.modes if isinstance(mode_or_step, Step) else [mode_or_step]
    tokens = max((num_tokens(size, mode) for mode in modes), default=1)  # a step that reuses an output calls no mode
    return max(1, min(LARGEST_GROWTH * base, base * num_tokens(size, native) // tokens))


def _in_order(outputs: Sequence[Tensor], rows: Sequence[Any]) -> Tensor:
    """Outputs of parts of a batch, in the order of the batch."""
    joined = outputs[0] if len(outputs) == 1 else torch.cat(list(outputs))
    return joined if isinstance(rows[0], slice) else joined[torch.cat(list(rows)).argsort()]


def _join(branches: tuple[Condition, Condition]) -> Condition:
    """Conditions of both branches as one batch."""
    shown, null = branches
    texts = [text for text in (shown.text, null.text) if isinstance(text, TextKeys)]
    labels = [label for label in (shown.label, null.label) if label is not None]
    frames = _join_frames(shown.frames, null.frames)
    return Condition(torch.cat(labels), join_texts(texts) if texts else None, frames)


def _join_frames(shown: Frames | None, null: Frames | None) -> Frames | None:
    """Given frames of both branches; none are zeros under an empty mask."""
    if shown is None:
        return None
    null = null or Frames(*(torch.zeros_like(part) for part in shown))
    return Frames(*(torch.cat(pair) for pair in zip(shown, null, strict=True)))
