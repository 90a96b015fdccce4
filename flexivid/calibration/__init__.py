"""Measure a model so that budgets are spent well: errors of modes, plans held against real videos."""

DOORS = ("calibrate", "plan_search", "scoring", "searched")
