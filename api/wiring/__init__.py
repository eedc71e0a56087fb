"""Puts the processes together: the only place that knows which adapter serves which interface."""
