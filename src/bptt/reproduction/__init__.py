"""Published experiments: their rows, their runs, and the page of results."""
