"""What a run did, for people: one HTML file, or a few lines in a terminal.

Reads only what a run has written, while it runs or afterwards, and loads nothing heavy.
"""
