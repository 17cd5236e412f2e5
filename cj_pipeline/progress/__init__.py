"""How far a batch has come: values, stored events, and the words they are shown with."""
