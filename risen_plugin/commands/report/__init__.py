"""Show a run to people: as one HTML file, or as a few lines in a terminal.

Reads only the record of a run, while it runs or afterwards, and loads nothing heavy.
"""
