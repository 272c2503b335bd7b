"""What a search consists of: its space, the methods that choose from it, and the study that they learn from."""
