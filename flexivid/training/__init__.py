"""Training: the LightningModule, the mode of a global step, callbacks. Knows Lightning."""

DOORS = ("cli", "guarded", "modes", "module", "objective", "optimizer", "recipes", "resume")
