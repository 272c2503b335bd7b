"""What all commands share: their start, refusals, signals, what they print, and the exit status."""
