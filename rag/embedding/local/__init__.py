"""Models that run in this process, on its CPU or GPU: found (`models`), chosen (`choice`), prepared (`conversion`), run."""
