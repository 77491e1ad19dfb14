"""Sections of scripts/benchmark.py, one file each. `rows(repetitions)` of a section yields its rows and curves."""
