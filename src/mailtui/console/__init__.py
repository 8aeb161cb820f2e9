"""The console: the relay live on a terminal, and an operator's hands on it; a client of the control socket.

Importing this package loads no Textual: `launch.run` does, when the console starts.
"""
