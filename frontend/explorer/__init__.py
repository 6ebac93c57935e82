"""The explorer: everything about one compiled model on one page, for the browser."""
