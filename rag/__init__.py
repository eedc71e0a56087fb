"""Text in, ranked passages out. Knows no HTTP and no tenant tables; money is asked for through `rag.types.Meter`."""
