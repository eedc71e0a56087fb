"""Content becomes text. Readers run only inside the sandbox's children and know nothing of tenants, storage or networks."""
