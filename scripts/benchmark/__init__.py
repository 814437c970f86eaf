"""The benchmark: ratios from one run, with the cases that persistdict loses. Run it with scripts/bench."""
