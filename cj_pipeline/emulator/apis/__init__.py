"""The emulated services, a module each: their routes, what is checked, and how answers are worded.

    openai, anthropic, gemini      as their own documentation has them
    control                        the emulator's own: settings, clock, and what happened

What they share (jobs, their timeline, faults) is one folder up.
"""
