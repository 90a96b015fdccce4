"""Diffusion: process, times, loss, guidance, solvers. Knows tensors and schedules, never a model class."""

DOORS = ("guidance", "loss", "process", "solver", "times", "windows")
