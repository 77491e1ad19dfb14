"""The sections of scripts/benchmark.py, one a file: each yields what it finds, row by row, from `rows(repetitions)`."""
