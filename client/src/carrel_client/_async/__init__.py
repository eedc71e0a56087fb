"""The client for an event loop: nouns and their wire, written by hand. `client/make_sync.py` makes `_sync` of it."""
