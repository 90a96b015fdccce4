"""Budget: what a schedule costs and which schedule a budget buys. Needs no torch."""

DOORS = ("adaptive", "allowance", "cost", "measured", "planners", "schedule", "scores", "search", "spectral", "table")
