"""Adapters to what runs jobs: processes of this machine, Slurm, Ray. None has a queue of its own."""
