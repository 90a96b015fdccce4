"""An evaluation as a table for people."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from flexivid.pipeline.evaluation import Evaluation


def curve_table(evaluation: Evaluation) -> Table:
    """Cost and quality of each budget, in at most 80 columns."""
    title = f"{evaluation.metric} at step {evaluation.global_step}, mean {evaluation.fvd_auc:.4g}"
    table = Table(title=escape(title), box=SIMPLE_HEAD, collapse_padding=True)  # "[motion]" is no markup
    for name in ("budget", "GMACs", "seconds", "FVD", "95 %", "coverage", "PSNR"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in evaluation.rows:
        scores, likeness = row.scores, row.fidelity
        table.add_row(
            f"{row.budget:g}",
            f"{row.macs / 1e9:.3g}",
            f"{row.seconds:.3g}",
            f"{scores.fvd:.4g}",
            f"{scores.low:.4g} - {scores.high:.4g}",
            f"{scores.coverage:.2f}",
            "" if likeness is None else f"{likeness.psnr:.1f} dB",
        )
    return table
