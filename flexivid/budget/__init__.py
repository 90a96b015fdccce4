"""Budget: what a schedule costs and which schedule a budget buys. Needs no torch."""
