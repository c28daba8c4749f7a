"""The door: `python main.py ...` is `mmstream ...`."""

from mmstream.cli import main

if __name__ == "__main__":
    main()
