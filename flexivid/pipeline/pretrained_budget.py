"""A diffusers pipeline under a compute budget: its own solver, guidance and callbacks, a patch mode for each step.

The number of steps is the pipeline's, counted by the scheduler: guidance's second call of the network falls into the
same step (and may have a mode of its own), a second-order solver's second evaluation is a step of its own, as diffusers
counts them. Size and text length are those of the first call, in which the plan is made; it is planned anew for each
run of the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from flexivid.patching.shapes import Size3
from flexivid.pipeline.pretrained_plan import PretrainedPlan, check_fraction, check_planner, costs_of, plan_steps
from flexivid.pretrained.family import Fold, argument_names, config_of, named_call
from flexivid.pretrained.flexify import NATIVE, flexi_of, set_mode


class AppliedBudget:
    """A budget in force. ``remove()`` gives the pipeline back as it was; so does the end of a ``with`` block.

    Attributes:
        budget: Fraction of the all-native cost.
        guide_mode: Mode of guidance's second call, or ``None``.
        plan: Of the latest run; ``None`` before the first call of the network.
    """

    def __init__(
        self, pipe: Any, budget: float, how: dict[str, Any], on_plan: Callable[[PretrainedPlan], None] | None
    ) -> None:
        self.pipe, self.budget, self._how, self.on_plan = pipe, budget, how, on_plan
        self.guide_mode: str | None = how["guide_mode"]
        self.model, self.scheduler = pipe.transformer, pipe.scheduler
        self.plan: PretrainedPlan | None = None
        self.steps_done, self._first_index, self._calls = 0, 0, 0
        self._compiled = vars(self.model).get("_compiled_call_impl")
        self._call = self._compiled or self.model._call_impl
        # what PyTorch calls before any hook of a module; folding is done by hooks, so a plan must be made before them
        self.model._compiled_call_impl = self._planned_call
        self.scheduler.set_timesteps = _followed_by(self.scheduler.set_timesteps, self._begin)
        self.scheduler.step = _followed_by(self.scheduler.step, self._advance)

    def remove(self) -> None:
        """Back to the native mode, and to the pipeline's own scheduler."""
        if vars(self.pipe).get("_flexivid_budget") is not self:
            return
        del self.pipe._flexivid_budget
        del self.scheduler.step, self.scheduler.set_timesteps
        if self._compiled is None:
            del self.model._compiled_call_impl
        else:
            self.model._compiled_call_impl = self._compiled
        set_mode(self.model, NATIVE)

    def __enter__(self) -> AppliedBudget:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def _begin(self) -> None:
        self.plan, self.steps_done, self._calls = None, 0, 0
        set_mode(self.model, NATIVE)

    def _advance(self) -> None:
        index = getattr(self.scheduler, "step_index", None)
        if index is not None:  # Cosmos calls ``step`` twice and sets the index back between
            self._first_index = index - 1 if self.steps_done == 0 else self._first_index
        self.steps_done = self.steps_done + 1 if index is None else index - self._first_index
        if self.plan is None:
            return
        if self.plan.guide_modes and self._calls == 1:
            raise ValueError(
                f"got guide mode {self.guide_mode} for a {type(self.pipe).__name__} that calls its transformer once a"
                " step; expected one call with and one without the prompt; guide it (guidance_scale), or leave"
                " guide_mode out if it makes both in one call"
            )
        self._calls = 0
        set_mode(self.model, self.plan.mode_of(self.steps_done, 0))

    def _planned_call(self, *args: Any, **kwargs: Any) -> Any:
        if self.pipe.scheduler is not self.scheduler:
            raise ValueError("got another scheduler than the one under a budget; expected the same; apply_budget again")
        if self.plan is None:
            self._make_plan(args, kwargs)
        if self.plan is not None and self.plan.guide_modes:
            set_mode(self.model, self.plan.mode_of(self.steps_done, self._calls))
        self._calls += 1
        return self._call(*args, **kwargs)

    def _make_plan(self, args: tuple, kwargs: dict[str, Any]) -> None:
        if getattr(self.model, "is_cache_enabled", False):
            raise ValueError("got a cache of diffusers with a budget; expected one of them; call disable_cache")
        size, text_tokens = measure_call(self.model, args, kwargs)
        num_steps = getattr(self.pipe, "_num_timesteps", None) or len(self.scheduler.timesteps)
        costs = costs_of(self.model, size, text_tokens)
        self.plan = plan_steps(self.budget, costs, num_steps, **self._how)
        if self.on_plan is not None:
            self.on_plan(self.plan)
        set_mode(self.model, self.plan.modes[min(self.steps_done, num_steps - 1)])


def apply_budget(
    pipe: Any,
    budget: float,
    *,
    guide_mode: str | None = None,
    planner: str = "weak_first",
    on_plan: Callable[[PretrainedPlan], None] | None = None,
) -> AppliedBudget:
    """Run a diffusers pipeline at a fraction of its compute: weak modes in some steps, native ones in the rest.

    Each run plans anew, for its own size, text length and number of steps, so nothing has to be said twice. Cost is
    counted exactly, one call a step and branch of guidance.

    Args:
        pipe: Pipeline of diffusers whose ``transformer`` went through ``flexify`` or ``load_adapter``.
        budget: Fraction of the all-native cost of the network, in (0, 1]; 1 is the pipeline as shipped, bit for bit.
        guide_mode: Mode of the call without the prompt, in all steps that are not cheaper: saved there, the compute
            buys more native steps. For pipelines that call with the prompt first and without it next (Wan,
            HunyuanVideo, Cosmos). ``None`` = the mode of the step, and then 1 is the pipeline as shipped.
        planner: Where the weak steps are: ``weak_first`` as in FlexiDiT's paper (2502.20126), ``weak_last``, or
            ``three_phase`` with native steps at both ends.
        on_plan: Called with the plan of each run, before the network is.

    Returns:
        A handle with ``plan`` and ``remove()``; also a context manager. A new budget takes the place of an old one.

    Raises:
        ValueError: If the budget is not in (0, 1], there is no such planner, or the pipeline is not one that can take
            it. A budget below the least possible is refused in the run, at the first call of the network, with the
            least one.

    Example:
        >>> apply_budget(None, 1.5)
        Traceback (most recent call last):
        ...
        ValueError: got budget 1.5; expected a fraction in (0, 1]; 1 is every step at full compute
    """
    check_fraction(budget)
    check_planner(planner)
    if getattr(pipe, "transformer", None) is None or getattr(pipe, "scheduler", None) is None:
        raise ValueError(
            f"got a {type(pipe).__name__}; expected a diffusers pipeline with a transformer and a scheduler; pass one"
        )
    if getattr(pipe, "transformer_2", None) is not None:
        raise ValueError("got a pipeline with two transformers; expected one; call set_mode on each between steps")
    flexi_of(pipe.transformer)
    before = vars(pipe).get("_flexivid_budget")
    if before is not None:
        before.remove()
    pipe._flexivid_budget = AppliedBudget(pipe, budget, {"guide_mode": guide_mode, "planner": planner}, on_plan)
    return pipe._flexivid_budget


def measure_call(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[Size3, int]:
    """Latent size (t, h, w) and text length of a call of a flexified transformer."""
    family = flexi_of(model).family
    call = named_call(argument_names(model), args, kwargs)
    text = call.get("encoder_hidden_states")
    native = family.patch(config_of(model))
    return family.fold_call(call, Fold(Size3(1, 1, 1), native)), 0 if text is None else text.shape[1]


def _followed_by(function: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    """The function, and then something without arguments; its signature stays, which diffusers looks at."""

    @wraps(function)
    def both(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        then()
        return result

    return both
