"""Parameter files: formats, layouts of names, conversion, loading."""
