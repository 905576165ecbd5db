"""`python -m routecore` is the `routecore` command."""

from routecore.cli import main

if __name__ == "__main__":
    main()
