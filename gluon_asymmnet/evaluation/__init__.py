"""Accuracy of classifiers and detectors on whole data sets."""
