"""This process and its machine: terminal, memory, processor cores, slow imports."""
