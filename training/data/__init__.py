"""Reading of real training data."""
