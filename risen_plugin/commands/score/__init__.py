"""Score existing answers, of a file or of a run's log, without training."""
