"""Who may do how much: tenants, keys, tokens, budgets, rates and audit. SQL only; knows nothing of documents or vectors."""
