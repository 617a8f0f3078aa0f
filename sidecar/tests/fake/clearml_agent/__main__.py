import sys

from clearml_agent.commands import Worker


def main():
    assert sys.argv[1:] == ["daemon", "--queue", "q"], sys.argv
    Worker().daemon()
    return 0


if __name__ == "__main__":
    sys.exit(main())
