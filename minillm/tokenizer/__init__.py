"""Text ↔ token ids.

bpe (or the Rust crate) learns a vocabulary; vocabulary uses it; storage keeps it in files
chat_format: conversations as ids, with a mask of what is to be learned
hugging_face: all of this in the files that Hugging Face's libraries read; tokenizer_json reads one
learn: `minillm tokenizer`
"""
