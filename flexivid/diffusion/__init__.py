"""Diffusion: process, times, loss, guidance, solvers. Knows tensors and schedules, never a model class."""

DOORS = ("detail", "guidance", "loss", "mmd", "process", "solver", "times", "windows")
