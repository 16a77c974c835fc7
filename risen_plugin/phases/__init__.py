"""A RISEN phase or a burst, from its entry to its verdict, with its leftovers."""
