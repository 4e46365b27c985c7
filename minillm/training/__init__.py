"""From rows to weights.

dataset → packing → objectives → optimizers → loop; beside it checkpoint, log, devices
llama_folder: a Llama model in Hugging Face's format, read
export: rows as padded tensors, for a DataLoader of your own
"""
