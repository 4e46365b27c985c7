"""The Transformer, and how it writes: one token at a time."""
