"""How time and memory grow with photos, rows, styles and workers: `photos`, `rows`, `styles` and `workers`."""
