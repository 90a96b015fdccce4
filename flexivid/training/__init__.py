"""Training: the LightningModule, the mode of a global step, callbacks. Knows Lightning."""
