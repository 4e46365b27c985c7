"""From rows to weights.

dataset → packing → objectives → optimizers → loop; beside it checkpoint, log, devices
model_folder: a stage's weights as a folder for Hugging Face's libraries
export: rows as padded tensors, for a DataLoader of your own
"""
