"""`minillm evaluate --questions FILE` and `--text FILE`: scores for the reader's own task.

files       which files are named, and their rows
paired      is one model better than another, or was it luck?
questions   multiple choice by likelihood; question and answer by exact and contained match
text        bits per character and per byte
report      the command: models, tables, the line of eval_results.jsonl
"""
