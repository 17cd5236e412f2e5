"""What an artefact is held against: its own verdicts and callbacks, a store, and a signature.

`verification` puts it together and says what differs.
"""
