"""The HTTP routes, one file a noun. A route parses, makes one call, and answers."""
