"""Questions asked of a language model elsewhere, to word a search better; what it answers is never trusted."""
