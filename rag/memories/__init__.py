"""What is known of a subject: explicit facts with versions, times of validity and provenance. Knows no HTTP."""
