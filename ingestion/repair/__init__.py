"""Checks of what two stores say of each other, and their repair: SQL is the truth. Put together by `ingestion.reconciler`."""
