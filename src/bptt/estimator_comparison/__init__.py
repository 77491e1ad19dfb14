"""A benchmark of gradient estimators: bias, noise, cost, and the longest lag that each one learns."""
