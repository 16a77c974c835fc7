"""Hostile input and bad luck: plugins, YAML files, damaged runs, an endpoint.

``python -m benchmarks.hostile``, from the root. Each module makes tries of one kind, the same ones
for the same seed; ``trying`` runs them and says what is a fault.
"""
