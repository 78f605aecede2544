"""Single-shot detectors and their evaluation."""
