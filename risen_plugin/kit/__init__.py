"""What any program needs: files, YAML, JSON values, intervals, processes. No word of the domain."""
