"""The one place where embedding money is spent: dedupe → cache → hold → model → settle → cache (`service`)."""
