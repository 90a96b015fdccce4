"""From a budget to videos: settings, plans, the loop over a solver's steps."""

DOORS = (
    "denoiser",
    "compiling",
    "generate",
    "latency",
    "messages",
    "options",
    "plan",
    "sample_folder",
    "settings",
)
