"""Prepared arrays, patient folds, batches of windows, and augmentation."""
