"""Cases for `scripts/fuzz.py`: what is drawn, how it is run, and what is expected of it."""
