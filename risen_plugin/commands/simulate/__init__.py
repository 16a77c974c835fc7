"""Replay a recorded run through a scheduler without training: ``risen simulate``."""
