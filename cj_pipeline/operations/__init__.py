"""What a person starts outside a batch's course: preview, execute, cancel, regrade, work, erase."""
