"""What the project is made with and no installation needs; run from the project's folder."""
