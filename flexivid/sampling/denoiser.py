"""The network as a solver calls it: guided, in batches that suit the mode, each sample with its own step.

The solver calls a :class:`GuidedDenoiser` once for each step of a schedule. The output depends neither on how samples
are grouped nor on whether two branches of guidance share a call of the network, but for the rounding of kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flexivid.budget.schedule import REUSE, Step
from flexivid.diffusion.guidance import Guidance
from flexivid.model.block import Packed
from flexivid.model.conditioning import Condition
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import PatchMode, num_tokens
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

    Args:
        model: The network.
        settings: From ``Sampling(...).filled(model)``; of these ``packing`` says whether both branches share a call:
            ``always``, ``never``, or ``auto`` where that was measured to be faster, while both are few tokens.
        guidance: How branches are mixed.
        labels: Class of each sample, int64 (b,), on the network's device.
        steps_at: The step of each sample at a call.
        on_step: Called after each step of some of the samples.

    Attributes:
        last: Output of the last call, which a step that reuses it repeats.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> from flexivid.sampling.options import Sampling
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4"), num_classes=3))
        >>> settings = Sampling(size=(2, 4, 4)).filled(model)
        >>> step = Step(*map(PatchMode, model.config.modes))
        >>> labels = torch.tensor([0, 2])
        >>> denoise = GuidedDenoiser(model, settings, Guidance(2.0), labels, steps_of([step]))
        >>> denoise(0, torch.zeros(2, 3, 2, 4, 4), torch.ones(2)).shape
        torch.Size([2, 3, 2, 4, 4])
    """

    last: Tensor

    def __init__(
        self,
        model: FlexiDiT,
        settings: Settings,
        guidance: Guidance,
        labels: Tensor,
        steps_at: StepsAt,
        on_step: OnStep | None = None,
    ) -> None:
        self._model, self._settings, self._guidance = model, settings, guidance
        self._labels, self._steps_at, self._on_step = labels, steps_at, on_step
        self._no_class = torch.tensor(model.config.num_classes, device=labels.device)

    def __call__(self, call: int, x: Tensor, time: Tensor) -> Tensor:
        """Output at a call, (b, c, t, h, w); samples that take the same step share calls of the network.

        Args:
            call: Index of the call.
            x: Noisy latents, (b, c, t, h, w).
            time: (b,).
        """
        parts, outputs = self._parts(self._steps_at(call, x)), []
        for step, rows in parts:
            x_part, time_part, labels = x[rows], time[rows], self._labels[rows]
            guide_labels = labels if self._guidance.is_weak(step) else self._no_class.expand_as(labels)
            if step.mode is None:
                output = self.last[rows]
            elif step.guide_mode is None:
                output = self._model(x_part, time_part, Condition(labels), step.mode)
            else:
                if self._packs(x_part, step):
                    both = Condition(torch.cat([labels, guide_labels]))
                    mode = step.mode if step.guide_mode == step.mode else Packed(step.modes)
                    shown, guide = self._model(x_part.repeat(2, 1, 1, 1, 1), time_part.repeat(2), both, mode).chunk(2)
                else:
                    shown = self._model(x_part, time_part, Condition(labels), step.mode)
                    guide = self._model(x_part, time_part, Condition(guide_labels), step.guide_mode)
                output = guide + self._guidance.strength(step) * (shown - guide)
            outputs.append(output)
            if self._on_step is not None:
                self._on_step(len(output), step)
        self.last = _in_order(outputs, [rows for _, rows in parts])
        return self.last

    def _parts(self, steps: Sequence[Step]) -> list[tuple[Step, Any]]:
        """Samples that share a call: their step, and which of the batch they are."""
        kinds = list(dict.fromkeys(steps))
        if len(kinds) == 1:
            size = len(steps) if kinds[0] == REUSE else self._batch_of(kinds[0])
            return [(kinds[0], slice(start, start + size)) for start in range(0, len(steps), size)]
        indices = [torch.tensor([i for i, step in enumerate(steps) if step == kind]) for kind in kinds]
        device = self._labels.device
        return [
            (kind, rows)
            for kind, index in zip(kinds, indices, strict=True)
            for rows in index.to(device).split(self._batch_of(kind))
        ]

    def _batch_of(self, step: Step) -> int:
        return batch_of(step, self._settings.size, self._model.config.native, self._settings.batch_size)

    def _packs(self, x: Tensor, step: Step) -> bool:
        """Whether both branches of a step share a call."""
        if self._settings.packing != "auto":
            return self._settings.packing == "always"
        tokens = len(x) * sum(num_tokens(self._settings.size, mode) for mode in step.modes)
        return tokens <= PACKED_TOKENS.get(x.device.type, PACKED_TOKENS_ELSEWHERE)


def steps_of(schedule: Sequence[Step]) -> StepsAt:
    """The same schedule for all samples."""
    return lambda call, x: [schedule[call]] * len(x)


def batch_of(mode_or_step: PatchMode | Step, size: tuple[int, int, int], native: PatchMode, base: int) -> int:
    """Samples in a call: as many as hold about the tokens of ``base`` native ones, up to eight times ``base``.

    Args:
        mode_or_step: A mode, or a step, whose finer mode decides.
        size: Latent size (t, h, w).
        native: The network's native mode.
        base: Batch size of the native mode.

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
