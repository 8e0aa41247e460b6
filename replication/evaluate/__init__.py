"""What is measured on a trained SAE: one module per kind of measurement."""
