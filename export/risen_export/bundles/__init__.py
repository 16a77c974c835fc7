"""The bundle as files: its manifest, and how it is published whole or not at all."""
