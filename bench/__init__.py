"""The harness that compares gemmc with PyTorch and other peers."""
