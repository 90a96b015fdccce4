"""Budget: what a schedule costs and which schedule a budget buys. Needs no torch."""

DOORS = ("adaptive", "allowance", "cost", "planners", "schedule", "scores", "search", "spectral", "table", "units")
