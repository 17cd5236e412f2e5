"""What a student is told: the page, the same as PDF, and which of the judges' words."""
