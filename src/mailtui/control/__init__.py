"""Asking the relay: the control socket, its client, and the same answers from the state directory of a stopped relay.

`client.Client` and `offline.Offline` have the same verbs (`verbs.Reads`) and give the contract's JSON as plain
objects; `source.find` chooses between them. `server.ControlServer` is the relay's side. `clean` makes text from
outside harmless.
"""
