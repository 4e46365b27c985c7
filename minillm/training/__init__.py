"""From rows to weights.

dataset → packing → objectives → optimizers → loop; beside it checkpoint, log, devices
model_folder: a stage's weights as a folder for Hugging Face's libraries
gguf_export: those weights as one file for llama.cpp
llama_folder: such a folder with anybody's Llama model, read
export: rows as padded tensors, for a DataLoader of your own
"""
