"""The client for threads, written by a program. `client/make_sync.py` makes `_sync` of it."""
