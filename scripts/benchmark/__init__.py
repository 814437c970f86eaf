"""The benchmark of persistdict: libraries on the same data, in rounds, as ratios."""
