"""Many runs from one command: every combination checked, run side by side, and recorded beneath one parent."""
