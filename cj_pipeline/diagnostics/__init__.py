"""How good a scale, its judges and its positions are: reliability, fit, agreement, balance.

Pure mathematics on top of `scale`, never under it. Claims that must hold are `checks`.
"""
