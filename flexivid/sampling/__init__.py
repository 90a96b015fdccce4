"""From a budget to videos: settings, plans, the loop over a solver's steps."""

DOORS = (
    "conditions",
    "denoiser",
    "compiling",
    "encoders",
    "generate",
    "latency",
    "messages",
    "options",
    "pictures",
    "plan",
    "sample_folder",
    "settings",
)
