"""Conversations: sessions of a subject, and the turns in them. Recalling turns and packing them is done elsewhere."""
