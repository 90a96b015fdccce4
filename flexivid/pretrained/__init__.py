"""Pre-trained video transformers of diffusers, given weak modes. Knows shapes; native weights stay as they are."""

DOORS = ("adapter", "cost", "flexify", "load", "merged", "model_files", "more_modes", "signature")
