"""The verbs of the command line: a module each, with ``run(words)`` that returns the exit code."""
