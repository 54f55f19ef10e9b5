"""`python -m lvae` is `lvae`."""

from lvae.cli import main

main()
