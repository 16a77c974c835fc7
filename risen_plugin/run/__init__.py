"""One training run: assembled, begun, decided on, resumed and ended."""
