"""Networks of the papers, one file per family."""
