"""What a tenant may have and how fast it may ask: plans and what overrides them, quotas, rates."""
