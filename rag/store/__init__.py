"""Vectors: one protocol, four stores. Engine (Qdrant Edge in its own process), Qdrant server, Edge in process, memory."""
