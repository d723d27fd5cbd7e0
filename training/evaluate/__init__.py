"""Measure a bundle on labelled data: ``python -m training.evaluate --help``."""
