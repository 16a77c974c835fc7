"""Tools for any program: files, YAML, JSON values, intervals, processes. No word of the domain."""
