"""The fleet: what runs in the cluster, whether it is patched, and what is done about it ahead of need.

`survey` reads what runs, `judge` says how each workload stands, `report` is the form of that and `keeper` its place in
the mirror; `pace` spares the upstreams, `restart` replaces pods, `notices` tells their owners; `walker` goes round.
"""
