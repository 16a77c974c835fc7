"""What an answer is worth, and what TRL may learn of it."""
