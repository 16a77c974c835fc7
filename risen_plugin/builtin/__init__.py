"""What risen-plugin itself offers, registered through the same hooks as any plugin."""
