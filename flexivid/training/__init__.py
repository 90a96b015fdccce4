"""Training: the LightningModule, the mode of each global step, callbacks. Uses Lightning."""

DOORS = ("cli", "guarded", "modes", "module", "objective", "optimizer", "resume")
