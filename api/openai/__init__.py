"""What the OpenAI SDK calls, over the same handles as the native routes: vector stores, files, embeddings, models."""
