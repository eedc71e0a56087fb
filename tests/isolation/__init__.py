"""Isolation, generated: every operation × every place of an id × every kind of id × every kind of principal."""
