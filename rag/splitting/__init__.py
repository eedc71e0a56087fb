"""Text becomes chunks: where it may be cut, by what rules, and what parts are returned around them."""
