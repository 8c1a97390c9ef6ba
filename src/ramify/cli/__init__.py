"""The command line: one thin command a file over the library. See docs/cli.md for options and exit codes."""
