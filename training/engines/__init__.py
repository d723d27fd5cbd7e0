"""What each engine learns from a batch."""
