"""The requests' side: documents are examined, counted, taken in, shown and deleted. The work itself is a job's."""
