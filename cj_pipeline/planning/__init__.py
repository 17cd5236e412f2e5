"""What a batch is going to request, and what stands in its way: pairs, budgets and ceilings.

Works on a batch's record and reads the store; what is planned is stored by `steps`.
"""
