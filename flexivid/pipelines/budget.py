"""A diffusers pipeline under a compute budget: its own solver, guidance and callbacks, a patch mode for each step.

The budget belongs to the pipeline and is in force while the pipeline runs: all other calls of its transformer are
native, also those of pipelines that share it. After a run, transformer and scheduler are as before (budgeted_run.py).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from flexivid.pipelines.budgeted_run import BudgetedRun, PlanMaker
from flexivid.pipelines.plan import PretrainedPlan, check_fraction, check_planner, explicit_plan, plan_steps
from flexivid.pretrained.flexify import NATIVE, flexi_of, switch
from flexivid.pretrained.weak_modes.derived import derive, restore


class AppliedBudget:
    """A budget in force.

    ``remove()`` leaves the pipeline without a budget. The end of a ``with`` block restores the budget from before the
    block. ``plan`` is that of the latest run; ``None`` before the first call of the network. ``budget`` is the fraction
    of the all-native cost; ``None`` under an explicit schedule.
    """

    def __init__(
        self,
        pipe: Any,
        make_plan: PlanMaker,
        *,
        budget: float | None = None,
        guide_mode: str | None = None,
        on_plan: Callable[[PretrainedPlan], None] | None = None,
    ) -> None:
        self.pipe, self.make_plan, self.on_plan = pipe, make_plan, on_plan
        self.budget, self.guide_mode = budget, guide_mode
        self.flexi = flexi_of(pipe.transformer)
        self.plan: PretrainedPlan | None = None
        self._is_removed = False
        self._replaced = _budget_of(pipe)
        if self._replaced is not None:
            self._replaced._suspend()
        self._enforce()

    def _enforce(self) -> None:
        self._mode_before = flexi_of(self.pipe.transformer).mode
        switch(self.pipe.transformer, NATIVE)
        self.pipe.flexivid_budget = self
        derive(self.pipe, _run_methods)

    def remove(self) -> None:
        """Remove the budget, and put the transformer back into the mode that it had before."""
        self._is_removed = True
        self._suspend()

    def _suspend(self) -> None:
        if _budget_of(self.pipe) is not self:
            return
        del self.pipe.flexivid_budget
        restore(self.pipe, _run_methods)
        transformer = self.pipe.transformer
        if getattr(transformer, "flexi", None) is self.flexi and flexi_of(transformer).mode == NATIVE:
            switch(transformer, self._mode_before)

    def __enter__(self) -> AppliedBudget:
        return self

    def __exit__(self, *error: object) -> None:
        if _budget_of(self.pipe) is self:
            self.remove()
            if self._replaced is not None and not self._replaced._is_removed:
                self._replaced._enforce()

    def begin(self) -> BudgetedRun:
        """Begin a run; its transformer must be the one that the budget was applied to, compiled or not."""
        self.plan = None
        run = BudgetedRun(self.pipe, self.flexi, self._plan_run)
        run.check_parts()
        switch(self.pipe.transformer, NATIVE)
        return run

    def _plan_run(self, costs: dict[str, int], num_steps: int) -> PretrainedPlan:
        self.plan = self.make_plan(costs, num_steps)
        if self.on_plan is not None:
            self.on_plan(self.plan)
        return self.plan


def _budget_of(pipe: Any) -> AppliedBudget | None:
    """The budget in force, or ``None``. ``getattr`` would make diffusers look it up in the pipeline's configuration."""
    return vars(pipe).get("flexivid_budget")


def _run_methods(base: type) -> dict[str, Any]:
    """Make the method of the derived class of a pipeline under a budget (derived.py)."""

    @functools.wraps(base.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        applied = _budget_of(self)
        if applied is None:
            return base.__call__(self, *args, **kwargs)
        with applied.begin() as run:
            result = base.__call__(self, *args, **kwargs)
        run.check_end()
        return result

    @functools.wraps(base.__call__)
    def stream(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        applied = _budget_of(self)
        if applied is None:
            yield from base.__call__(self, *args, **kwargs)
            return
        run = applied.begin()
        with closing(base.__call__(self, *args, **kwargs)) as source:
            while True:  # between two results the run is suspended: their reader may use the transformer
                with run:
                    result = next(source, _END)
                if result is _END:
                    return
                yield result

    return {"__call__": stream if inspect.isgeneratorfunction(base.__call__) else call}


_END = object()


def apply_budget(
    pipe: Any,
    budget: float,
    *,
    guide_mode: str | None = None,
    planner: str = "weak_first",
    on_plan: Callable[[PretrainedPlan], None] | None = None,
) -> AppliedBudget:
    """Run a diffusers pipeline at a fraction of its compute: weak modes in some steps, native ones in the rest.

    Each run is planned for its size, text length and number of steps. Costs are exact: one call a step and branch of
    guidance. The budget holds for calls of ``pipe(...)``, also after the transformer was compiled or the scheduler
    replaced; in a loop of your own, call ``set_mode`` before each step.

    Args:
        pipe: Pipeline of diffusers whose ``transformer`` went through ``flexify`` or ``load_adapter``.
        budget: Fraction of the all-native cost of the network, in (0, 1]; 1 is the pipeline as shipped, bit for bit.
        guide_mode: Mode of the call without the prompt, in all steps that are not cheaper; the compute that it saves
            buys more native steps. For pipelines that call with the prompt first and without it next (Wan,
            HunyuanVideo, Cosmos). ``None`` = the mode of the step; only then budget 1 is the pipeline as shipped.
        planner: Where the weak steps are: ``weak_first`` as in FlexiDiT's paper (2502.20126), ``weak_last``, or
            ``three_phase`` with native steps at both ends. All keep the number of steps that the pipeline is
            called with; ``flexivid.sample --pipeline`` plans that too, see ``apply_schedule``.
        on_plan: Called with the plan of each run, before the network is.

    Returns:
        A handle with ``plan`` and ``remove()``; also a context manager. A new budget replaces an old one.
        The transformer is native between runs, however they end.

    Raises:
        ValueError: If the budget is not in (0, 1], there is no such planner, or the pipeline cannot have a budget. A
            budget below the least possible is refused at the first call of the network, in an error that names the
            least one.

    Example:
        >>> apply_budget(None, 1.5)
        Traceback (most recent call last):
        ...
        ValueError: got budget 1.5; expected a fraction in (0, 1]; 1 is every step at full compute
    """
    check_fraction(budget)
    check_planner(planner)
    _check_pipeline(pipe)
    make_plan = functools.partial(plan_steps, budget, guide_mode=guide_mode, planner=planner)
    return AppliedBudget(pipe, make_plan, budget=budget, guide_mode=guide_mode, on_plan=on_plan)


def apply_schedule(pipe: Any, modes: Sequence[str], *, guide_modes: Sequence[str] = ()) -> AppliedBudget:
    """Run a diffusers pipeline with these modes, ``"native"`` or weak, one for each solver step; a handle as above.

    A run must have as many steps: ``pipe(..., num_inference_steps=len(modes))``; it is refused at the first call of the
    network otherwise. The calls without the prompt have modes of their own where there are ``guide_modes``.
    """
    _check_pipeline(pipe)
    make_plan = functools.partial(explicit_plan, tuple(modes), guide_modes=tuple(guide_modes))
    make_plan(dict.fromkeys((NATIVE, *flexi_of(pipe.transformer).modes), 1), len(modes))  # refuses unknown modes
    return AppliedBudget(pipe, make_plan)


def _check_pipeline(pipe: Any) -> None:
    if getattr(pipe, "transformer", None) is None or getattr(pipe, "scheduler", None) is None:
        raise ValueError(
            f"got a {type(pipe).__name__}; expected a diffusers pipeline with a transformer and a scheduler; pass one"
        )
    if getattr(pipe, "transformer_2", None) is not None:
        raise ValueError("got a pipeline with two transformers; expected one; call set_mode on each between steps")
    flexi_of(pipe.transformer)
