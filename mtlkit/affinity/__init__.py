"""Affinity: which tasks help and hurt each other, and what attention looks at."""
