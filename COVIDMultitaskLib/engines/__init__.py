"""The engines: one contract, one file for each, one registry."""
