"""Measurements. Each prints a ratio to a floor that it measures in the same run."""
