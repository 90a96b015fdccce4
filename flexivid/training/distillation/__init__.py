"""Distillation: the weak modes of a pre-trained transformer learn to predict what its native mode predicts."""

DOORS = ("ema", "module", "recorded_data")
