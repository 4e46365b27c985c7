"""MiniLLM: learn how a Chinese language model is trained by training one.

One module for each subject; a module imports only modules above it in this list:
config, identity, world, sources, mix, bpe, tokenizer, tensors, model, objectives,
checkpoint, trainer, generate, evaluate, show, cli.
"""

__version__ = "0.1.0"
