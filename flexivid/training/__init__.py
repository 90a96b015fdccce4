"""Training: the LightningModule, the mode of a global step, callbacks. Knows Lightning."""

DOORS = ("cli", "command_lines", "guarded", "modes", "module", "objective", "optimizer", "resume")
