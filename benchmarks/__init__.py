"""Measurements through the product's own path: `python -m benchmarks NAME`."""
