"""Recorded runs side by side: grouped, ranked, tested, shown."""
