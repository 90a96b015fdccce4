"""How good generated videos are, budget by budget: real clips, samples, scores, tables, pages."""

DOORS = (
    "against",
    "clips",
    "compare",
    "curve",
    "features",
    "prompts",
    "ranks",
    "report",
    "result",
    "rivals",
    "run",
    "samples",
)
