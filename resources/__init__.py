"""What is connected: the environment's settings and secrets become the runtime of the steps."""
