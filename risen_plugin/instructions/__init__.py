"""The instructions of a run: set apart, drawn, chosen and checked."""
