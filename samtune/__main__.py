"""`python -m samtune`, the same as `samtune`."""

from samtune.cli import main

main()
