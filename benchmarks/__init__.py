"""Side-by-side measurements against other tools, each a command that anyone can run."""
