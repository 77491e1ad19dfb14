"""Runs and their folders: resumption, loading, reading, comparison."""
