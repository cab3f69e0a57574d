"""Measure a model on held-out heads: `geoinv evaluate generator|inversion|mesh`."""
