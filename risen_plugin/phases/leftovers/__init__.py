"""What RISEN phases leave for fine-tuning: verified answers, and instructions nobody solved."""
