"""The `zmqinfer` command, as the shell and `python -m zmqinfer` begin it.

Nothing is imported before Ctrl-C is answered, for what a command needs takes a tenth of a second to import. What Python
does before this module, some hundredths of a second, is its own, and so is what it says of Ctrl-C meanwhile.
"""

import sys


def main() -> None:
    """Runs the command line and ends the process with its exit code, 130 after Ctrl-C."""
    try:
        from zmqinfer.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
