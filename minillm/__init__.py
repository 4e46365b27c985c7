"""MiniLLM: learn how a Chinese language model is trained by training one.

One module for each subject; a module imports only modules above it in this list:
config, identity, world, rows, formats, sources, mix, bpe, tokenizer, tensors, export, model,
objectives, checkpoint, trainer, generate, evaluate, lab, show, fetch, cli. Where a subject needs
more than one file, its parts stand beside it: world_*, tokenizer_*, mix_report, and shuffle,
quotas and workers for mix.
"""

__version__ = "0.1.0"
