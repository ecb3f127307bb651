"""`python -m rlzoo`, and `torchrun ... -m rlzoo run ...` for several processes."""

from rlzoo.cli import main

if __name__ == "__main__":
    main()
