"""Every metric of the pipeline: its catalogue, its reading from rows, assertions over it.

Nothing is counted in a process, so figures stay right whichever process died.
"""
