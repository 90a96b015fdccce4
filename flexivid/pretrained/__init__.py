"""Pre-trained video transformers of diffusers, given weak modes. Knows shapes; native weights stay as they are."""

DOORS = ("adapter", "cost", "flexify", "load", "merged", "model_files", "shared_weights", "signature")
