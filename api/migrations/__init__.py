"""Schema revisions, oldest first. Applied by `api.schema`; a test compares their sum with the tables of the code."""
