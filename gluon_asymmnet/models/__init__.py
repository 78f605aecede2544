"""Networks: one module per architecture, and their names."""
