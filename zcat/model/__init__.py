"""What zcat speaks of: datasets, roots, chunks, selections. Pure values and arithmetic; no input, no output."""
