"""Documents become vectors: readers, blobs, the pipeline, durable jobs, and the one transaction that makes a version live."""
