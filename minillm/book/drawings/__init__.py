"""The drawings of mechanisms, a module for each part of the book."""
