"""Decide whether a phase was worth it: differences, verdicts and controllers. Pure."""
