"""Entry points: each file is a command, its docstring the manual."""
