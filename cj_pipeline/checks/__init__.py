"""What must hold of every batch: claims over its rows, shown as asset checks and in reports."""
