"""The record of a run, written and read again: its events, checkpoints, answers and lock."""
