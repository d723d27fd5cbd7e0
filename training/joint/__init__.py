"""Training of the joint engine."""
