"""Makes one GGUF file of a split set: planned (plan), carried out (copy, job), checked (check)."""
