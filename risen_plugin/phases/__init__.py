"""A RISEN phase or a burst, from its entry to its verdict, and what it leaves."""
