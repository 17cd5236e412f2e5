"""The seam to the services behind judges: words and wire, no policy.

Adapters hold only words (`build_request`, `parse_reply`: pure) and wire (one network step per
verb). When to send, retry, wait or stop is decided above, in `provider_jobs`. Every adapter raises
`errors.TransientError` or `errors.FinalError` and nothing of its SDK's.

    registry       opens the adapter for a judge, with its address and key
    base           the types that cross the seam
    transport      what adapters share: errors classified, envelopes read leniently
    chat_completions, responses, messages, generate_content     words, one dialect each
    openai, anthropic, gemini                                   wire, one SDK each
"""
