"""Sample the answers of a RISEN phase from a graph: ``base`` exports, ``sampler`` answers."""
