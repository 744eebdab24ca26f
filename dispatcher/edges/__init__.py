"""The thin edges: each technology is imported in one place here, and nowhere else."""
