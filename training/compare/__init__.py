"""Compare engines and ways to train them: ``python -m training.compare --help``."""
