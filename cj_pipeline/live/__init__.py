"""Single calls under back-pressure: asynchronous inside, a plain function from outside.

    fair_queue        who is next: priorities that age, fair shares between batches; pure
    circuit_breaker   when a model is left alone, and who may probe whether it is back; pure
    rate_limiter      both, and the limits on calls and tokens, in one file all processes share
    retry             what is tried again, how often and when
    journal           replies on disk the moment they arrive, until the store has them
    dispatcher        the calls themselves, many at once over several judges

What a batch requests, and what becomes of the replies, is `provider_jobs.live_calls`.
"""
