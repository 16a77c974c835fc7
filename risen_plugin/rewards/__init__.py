"""The rewards of a run: named, called together, checked, and handed to TRL."""
