"""One page that tells everything about a training run."""
