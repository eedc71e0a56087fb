"""Words and what they weigh: text becomes features, features sparse vectors, and a collection counts its own."""
