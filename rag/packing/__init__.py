"""Passages become one text for a language model, within a budget of its tokens."""
