"""The processes that `carrel serve` starts. Each imports what it runs and nothing else: what is imported stays in memory."""
