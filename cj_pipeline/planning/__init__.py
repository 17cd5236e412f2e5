"""What a batch is going to request, and whether it can end with scores at all.

Works on a batch's record; what is planned is stored by `steps`.
"""
