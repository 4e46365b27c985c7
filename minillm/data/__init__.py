"""Rows of training data: what they are, how files are read, and how the mix is made of them.

rows ← formats ← readers: what any file's rows mean
importer, hubs: `minillm import` and `minillm download`
categories, mix, report: `minillm mix`
"""
