"""The parts of the ledger in `tenants.budget`: its windows, and what is told of them."""
