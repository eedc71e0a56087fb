"""Sessions beside documents: what is attached to them, kept beyond them, exported, and their turns' vectors."""
