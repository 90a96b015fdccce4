"""One run of a diffusers pipeline under a budget: counts its steps, and chooses the mode of each call of its network.

Steps are counted as the scheduler counts them: the second call of guidance belongs to the same step (and may have
another mode), the second evaluation of a second-order solver is a step. The plan is made in the first call, for its
size and text length. The scheduler's ``step`` and ``set_timesteps`` are watched while the run lasts, no longer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any

from torch import nn

from flexivid.patching.shapes import Size3
from flexivid.pipelines.plan import PretrainedPlan, costs_of
from flexivid.pretrained.families.family import named_call
from flexivid.pretrained.weak_modes.flexi import Flexi
from flexivid.pretrained.weak_modes.weak_call import modes_from

PlanMaker = Callable[[dict[str, int], int], PretrainedPlan]  # from MACs of a call by mode, and the number of steps


class BudgetedRun:
    """Chooses modes and counts steps in a ``with`` block around the run; plans once, before the network is called."""

    def __init__(self, pipe: Any, flexi: Flexi, make_plan: PlanMaker) -> None:
        self.pipe, self.flexi, self.make_plan = pipe, flexi, make_plan
        self.scheduler = pipe.scheduler
        self.plan: PretrainedPlan | None = None
        self.steps_done = 0
        self._first_index = 0  # of the scheduler, in the first step
        self._calls = 0  # of the network in this step
        self._all_calls = 0
        self._stack = ExitStack()

    def __enter__(self) -> BudgetedRun:
        with ExitStack() as stack:  # undoes the first ones if a later one fails
            for name, then in (("set_timesteps", self._restart), ("step", self._advance)):
                stack.callback(_call_after(self.scheduler, name, then))
            stack.enter_context(modes_from(self.flexi, self.mode_of_call))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def check_parts(self) -> None:
        """Refuse a transformer or scheduler that was replaced since the run began."""
        if getattr(self.pipe.transformer, "flexi", None) is not self.flexi:
            raise ValueError(
                f"got another transformer in the {type(self.pipe).__name__} than the one under a budget (or one without"
                " its weak modes); expected the same; flexify it and apply_budget again, or remove() the budget"
            )
        if self.pipe.scheduler is not self.scheduler:
            raise ValueError(
                "got another scheduler in the middle of a run under a budget; expected the same; set it before the run"
            )

    def check_end(self) -> None:
        """Refuse a run whose steps could not be counted: the network was called, the scheduler never."""
        if self.steps_done == 0 and self._all_calls > 2:
            raise ValueError(
                f"got {self._all_calls} calls of the transformer and no step of the scheduler of this"
                f" {type(self.pipe).__name__}; expected steps, by which modes are chosen; remove() the budget"
            )

    def mode_of_call(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> str:
        """The mode of the next call, by the plan; refuses replaced parts and a cache of diffusers."""
        self.check_parts()
        plan = self.plan = self.plan or self._first_plan(model, args, kwargs)
        mode = plan.mode_of_call(self.steps_done, self._calls)
        self._calls += 1
        self._all_calls += 1
        return mode

    def _first_plan(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> PretrainedPlan:
        if getattr(model, "is_cache_enabled", False):
            raise ValueError("got a cache of diffusers with a budget; expected one of them; call disable_cache")
        call, signature = named_call(model, args, kwargs), self.flexi.family.signature
        size = Size3(*signature.unpack(call[signature.latent], call).shape[2:])
        text = call.get("encoder_hidden_states")
        costs = costs_of(model, size, 0 if text is None else text.shape[1])
        return self.make_plan(costs, getattr(self.pipe, "num_timesteps", None) or len(self.scheduler.timesteps))

    def _restart(self) -> None:
        self.plan, self.steps_done, self._calls = None, 0, 0

    def _advance(self) -> None:
        self.check_parts()
        index = getattr(self.scheduler, "step_index", None)
        if index is not None:  # Cosmos calls ``step`` twice and sets the index back between
            self._first_index = index - 1 if self.steps_done == 0 else self._first_index
        self.steps_done = self.steps_done + 1 if index is None else index - self._first_index
        if self.plan is not None and self.plan.guide_modes and self._calls == 1:
            raise ValueError(
                f"got guide mode {self.plan.guide_modes[0]} for a {type(self.pipe).__name__} that makes one call"
                " a step; expected one call with and one without the prompt; guide it (guidance_scale), or leave"
                " guide_mode out if it makes both in one call"
            )
        self._calls = 0


def _call_after(scheduler: Any, name: str, then: Callable[[], None]) -> Callable[[], None]:
    """Call ``then`` after each call of a method of this scheduler, until the returned function is called."""
    function, before = getattr(scheduler, name), vars(scheduler).get(name)

    @wraps(function)  # diffusers looks at signatures
    def both(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        then()
        return result

    def end() -> None:
        if vars(scheduler).get(name) is not both:  # replaced by other code during the run
            return
        if before is None:
            delattr(scheduler, name)
        else:
            setattr(scheduler, name, before)

    setattr(scheduler, name, both)
    return end
