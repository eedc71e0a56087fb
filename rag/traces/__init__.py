"""What questions leave behind, and asking them again: the regression test of any change to retrieval."""
