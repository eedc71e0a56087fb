"""What a conversation is given to a language model with: pins, what was said long ago summed up, and what a question finds."""
