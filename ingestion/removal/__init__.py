"""What nothing uses any more is removed: of documents, collections and tenants."""
