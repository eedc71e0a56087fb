"""What a job of a document does: fetched, read, cut, embedded, indexed, made live."""
