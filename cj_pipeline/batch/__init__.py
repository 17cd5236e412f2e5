"""What a batch is made of: essays, comparisons and the closed vocabularies of its settings.

Plain values without I/O. Reading them from people's files is `intake`, from the store `queries`.
"""
