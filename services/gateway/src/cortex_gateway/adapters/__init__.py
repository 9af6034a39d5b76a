"""Everything that talks to somebody else."""
