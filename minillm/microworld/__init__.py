"""A small closed world in Chinese, from which every built-in row is drawn.

A model of a million parameters cannot learn Chinese, but it can learn this world in minutes on a
CPU, and whether it did can be checked, because the answer to every question is known.

    words → exercises, documents → lessons (to learn from), scoring (to be tested by)
    identity: who the model says it is

Everything is a pure function of its arguments: the same seed gives the same rows on every machine.
"""
