"""A tenant's events are sent to where it wants them: endpoints, deliveries, their rules and signatures."""
