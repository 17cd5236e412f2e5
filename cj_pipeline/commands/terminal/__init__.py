"""What every command shares: its arguments, the home it works on, and what is printed."""
