"""What is written of a run, and the reading of it."""
