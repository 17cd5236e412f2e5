"""A judge as data: what it is, what it is shown, and what its answers cost.

Words for one provider's API are in `providers`; choosing among judges is `pairing`.
"""
