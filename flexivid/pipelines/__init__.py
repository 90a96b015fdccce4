"""Diffusers pipelines under a budget."""

DOORS = ("budget", "plan", "record", "report", "sample")
