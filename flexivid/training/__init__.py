"""Training: the LightningModule, the mode of each global step, callbacks. Uses Lightning."""

DOORS = ("cli", "command_lines", "guarded", "modes", "module", "objective", "optimizer", "resume")
