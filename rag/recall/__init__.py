"""What was said is found again: an index of a conversation, its ranking, and the times that a question names."""
