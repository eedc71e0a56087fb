"""Who is asking: keys, tokens of end users and of the operator's identity provider become principals."""
