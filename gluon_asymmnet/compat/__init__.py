"""The authors' files: names, formats, checkpoint."""
