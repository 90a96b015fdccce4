"""From a budget to videos: settings, plans, the loop over a solver's steps."""
