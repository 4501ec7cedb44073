"""Running the suite in a pytest process of its own."""
