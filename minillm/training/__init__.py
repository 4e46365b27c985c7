"""From rows to weights.

dataset → packing → objectives → optimizers → loop; beside it checkpoint, log, devices
export: rows as padded tensors, for a DataLoader of your own
"""
