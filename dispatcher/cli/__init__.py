"""The command line ``dispatcher``: data on stdout, messages on stderr, exit codes 0 done, 1 failed, 2 usage."""
