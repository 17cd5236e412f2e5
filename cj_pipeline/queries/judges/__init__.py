"""What the store knows of judges: who answered, how they compare, and which are worth asking."""
