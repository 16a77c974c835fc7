"""Answer over HTTP and in the terminal from a bundle, with one engine behind it."""
