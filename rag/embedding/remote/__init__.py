"""Vectors from any OpenAI-compatible server: paced, retried, each paid for once. `embedder` is the way in."""
