"""The leftovers of RISEN phases: verified answers, and instructions nobody solved."""
