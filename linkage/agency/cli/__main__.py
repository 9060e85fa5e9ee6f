"""`python -m linkage.agency.cli`."""

from linkage.agency.cli import main

main()
