"""How good generated videos are, budget by budget: real clips, samples, scores, tables, pages."""

DOORS = ("clips", "compare", "curve", "metric", "ranks", "report", "result", "rivals", "run", "samples")
