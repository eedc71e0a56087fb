"""Contents that are brought by URL: which addresses may be asked, and asking them. Knows no tenants and no database."""
