"""Numbers that say how good a prediction is: per-case metrics and the statistics over patients and folds."""
