"""What each reconciler wants, as pure functions; `service.py` is the shell that carries it out.

Every decision has the same form: the objects as the API server holds them, plus `now`, in; a list of writes out.
No writes means that nothing is to be done, so a restart writes nothing. A decision never depends on what an
earlier one did in memory: killed between any two writes, the next run continues from what is stored.
"""
