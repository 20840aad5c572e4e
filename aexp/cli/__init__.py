"""The verbs of the command line: a client that knows no more of aexp than `import aexp` shows."""
