"""The making of the embedded base model: its text, and the script that trains it from nothing."""
