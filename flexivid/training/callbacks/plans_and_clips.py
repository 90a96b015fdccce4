"""The plans that callbacks sample: of the budgets that can be met, by what was measured of the weights at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from flexivid.budget.table import read_tables
from flexivid.model.checkpoint import fingerprint
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.plan import Plan
from flexivid.sampling.planners import plan_for
from flexivid.sampling.settings import Settings


def possible_plans(
    network: FlexiDiT, settings: Settings, budgets: Sequence[float], folder: Path | None = None
) -> list[Plan]:
    """Plans of the budgets that can be met; of each other one a warning.

    Args:
        network: The network.
        settings: From ``Sampling(...).filled(network)``.
        budgets: Fractions of full compute.
        folder: Where ``FindPlans`` may have left what it measured. What is there of other weights is left alone.

    Raises:
        ValueError: If none can be met.
    """
    tables = read_tables(folder) if folder else []
    weights = fingerprint(network) if tables else ""
    tables = [table for table in tables if table.model == weights]
    plans, reasons = [], []
    for budget in budgets:
        try:
            plans.append(plan_for(network, settings, budget, tables=tables))
        except ValueError as error:
            reasons.append(str(error))
            rank_zero_warn(f"budget {budget:g} is left out: {error}")
    if not plans:
        raise ValueError(f"got no budget that can be met: {'; '.join(reasons)}")
    return plans
