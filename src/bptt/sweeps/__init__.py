"""Sweeps: names of jobs, manifest, one job, all jobs, and the checks before them."""
