"""What runs jobs: the durable queue, whose jobs it takes next, and the order of their steps."""
