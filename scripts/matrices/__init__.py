"""What `scripts/matrix.py` is made of: the choices and their pairs, and the oracle."""
