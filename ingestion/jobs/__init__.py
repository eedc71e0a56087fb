"""Jobs: as their tenants see them, whose they are, how far, and whose turn it is."""
