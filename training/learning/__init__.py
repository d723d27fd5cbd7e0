"""Learning that knows no engine: losses for partial labels, weighting of tasks, sampling, the loop."""
