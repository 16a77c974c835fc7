"""Score answers that exist already, outside of any training: of a file, or of a run's log."""
