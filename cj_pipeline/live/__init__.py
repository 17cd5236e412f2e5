"""Single calls under back-pressure: asynchronous inside, a plain function from outside.

    sharing     whose turn it is: priorities that age, fair shares between batches; pure
    breaker     when a model is left alone, and who may try whether it is back; pure
    lanes       both, and the limits on calls and tokens, in one file that all processes share
    retries     what is tried again, how often and when
    journal     replies on disk the moment they arrive, until the store has them
    engine      the calls themselves, many at once over several judges

What a batch asks and what becomes of the answers is `steps.live_calls`.
"""
