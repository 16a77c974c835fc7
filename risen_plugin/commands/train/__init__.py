"""Runs for people without a script: ``risen train``, ``risen adapt`` and ``risen advise``."""
