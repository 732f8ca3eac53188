"""Lets `python -m zmqinfer` be the command."""

from zmqinfer.cli import main

main()
