"""Which pairs a batch asks next, and in which order each is shown.

`waves` is the way in; `net` is what it sees of the batch; the rest are ways of choosing, each in
the module named after it, and `positions`, which puts what was chosen into a fair order.
"""
