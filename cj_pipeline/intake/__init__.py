"""What people submit, read and checked once: settings, batch folders, the inbox.

Past this package a batch is trusted values. Storing it is `steps.ingest`.
"""
