"""`python -m luthier` is the `luthier` command."""

from luthier.cli.main import main

main()
