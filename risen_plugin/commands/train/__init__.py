"""Runs for people without a script: ``risen train`` and ``risen adapt``."""
