"""Pure values and decisions. No await, no clock, no randomness, no logging; standard library only.

Times are Unix seconds (`float`, names end in `_at`); durations are `timedelta` in settings and policies and plain
seconds (`_s`) where they are compared on hot paths.
"""
