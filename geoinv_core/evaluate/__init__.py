"""Measure a model on held-out heads and real photos: `geoinv evaluate WHAT`."""
