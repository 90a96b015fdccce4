"""Networks that turn videos into features, and the weights they need."""
