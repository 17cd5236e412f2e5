"""What is kept on people: told to whoever asks, and erased from wherever it lies."""
