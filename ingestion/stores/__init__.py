"""Vector stores as the OpenAI SDK knows them: collections with a name, an expiry and files, over the ordinary documents."""
