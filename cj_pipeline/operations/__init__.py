"""What a person starts outside a batch's own course: preview, execute, cancel, regrade, erase."""
