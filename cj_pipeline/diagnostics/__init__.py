"""What a scale, its judges and its positions are worth: reliability, fit, agreement, balance.

Pure mathematics on top of `scale`, never under it. Claims that must hold are `checks`.
"""
