"""What a service should run on, and what that costs. Pure: no clock, no network; times and prices are passed in.

`catalog` says what can be bought, `law` and `coldstart` how long a start takes, `demand` what is asked for,
`ladder` and `prewarm` how long to stay ready after work, `plan` picks the cheapest of all that keeps the SLA.
"""
