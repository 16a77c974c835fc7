"""What is asked: held out, drawn, chosen and fit to be used."""
