"""Training of the weights that the extension loads."""
