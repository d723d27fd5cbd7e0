"""Chest CTs made around real lobe shapes: the labels are the truth by construction."""
