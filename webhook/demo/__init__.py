"""The demonstration: one pod admitted on this machine, everything embedded; a composition root."""
