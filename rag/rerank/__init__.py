"""A second opinion on the best candidates: a cross-encoder here, or a rerank endpoint elsewhere."""
