"""Which pairs are compared next, in which order each is shown, and by which judge.

`waves` is the entry point, `comparison_graph` what it sees of a batch; each strategy has the module
named after it. When to stop is `stopping`.
"""
