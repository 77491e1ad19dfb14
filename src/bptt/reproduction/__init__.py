"""Published experiments: rows, runs, and the results page."""
