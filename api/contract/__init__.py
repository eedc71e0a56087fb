"""The HTTP interface as something to rely on: its OpenAPI document, and what of it may change."""
