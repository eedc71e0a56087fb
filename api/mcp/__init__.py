"""The service as tools and resources of the Model Context Protocol. Imported with the first such request: it takes 0.6 s."""
